"""Runs a program with its buses served by the world: one small supervisor a program.

The supervisor must outlive the program (a stopped call without one returns ENOSYS for ever), so its death takes the
program along: PR_SET_PDEATHSIG, which is tied to the thread that forks and would be lost by a set-user-id program.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

from sim.server.seccomp import mem
from sim.server.seccomp.client import WorldClient
from sim.server.seccomp.dispatch import Dispatcher, Served
from sim.server.seccomp.filter import Architecture, this_architecture
from sim.server.seccomp.notify import FilterInstaller, Listener
from sim.server.seccomp.tty_ioctl import TCSETS

log = logging.getLogger(__name__)

BUS_PATTERNS = ("/dev/i2c-[0-9]*", "/dev/spidev[0-9]*")
EXIT_REFUSED = 3
EXIT_NOT_STARTED = 126
EXIT_NOT_FOUND = 127

_PR_SET_PDEATHSIG = 1
_SI_KERNEL = 0x80
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_LOOK_S = 0.5
_REFUSAL = (
    "qmodd sim exec: {why}; supervision needs Linux 5.14 or newer on x86-64 or aarch64 with seccomp user notification."
    " Use the in-process transport instead: drivers over in-process doubles of the bus libraries, as `qmodd soak` does."
)


class HostPty:
    """A pty's own settings, through a descriptor of ours."""

    def __init__(self, path: str) -> None:
        self._path = path

    def get(self, kind: int, size: int) -> bytes:
        request = 0x5401 if kind == TCSETS else 0x802C542A
        buffer = bytearray(size)
        self._ioctl(request, buffer)
        return bytes(buffer)

    def set(self, kind: int, settings: bytes) -> None:
        self._ioctl(kind, bytearray(settings))

    def _ioctl(self, request: int, buffer: bytearray) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, request, buffer)
        finally:
            os.close(descriptor)


class HostProcesses:
    """The callers as /proc shows them."""

    def memory(self, pid: int) -> AbstractContextManager[mem.ProcessMemory]:
        return mem.ProcessMemory(pid)

    def target(self, pid: int, descriptor: int) -> str:
        return mem.descriptor_target(pid, descriptor)

    def is_open(self, pid: int, descriptor: int) -> bool:
        return mem.is_open(pid, descriptor)

    def pty(self, path: str) -> HostPty:
        return HostPty(path)


def exec_supervised(
    argv: Sequence[str],
    module: str,
    world_socket: Path,
    device_paths: Sequence[str] = BUS_PATTERNS,
    *,
    timeout_s: float = 2.0,
) -> int:
    """Run `argv` with `device_paths` served by the world at `world_socket`; returns its exit code (128+N: signal N).

    `device_paths`: patterns below /dev/i2c- and /dev/spidev, and links to the ptys of serial lines. A bus that does
    not answer within `timeout_s` gives EIO. SIGTERM, SIGINT and SIGHUP are passed on. Call it from the main thread;
    child processes and threads of the program are served too, but only while the program itself runs.

    Returns 3 where the kernel refuses, 127 when there is no such program, 126 when it cannot be started.
    """
    machine = this_architecture()
    if machine is None:
        return _refuse(f"no system call table for {os.uname().machine}")
    program = shutil.which(argv[0])
    if program is None:
        _tell(f"qmodd sim exec: {argv[0]}: no such program")
        return EXIT_NOT_FOUND
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        pid, listener = _start(program, argv, machine, before)
        if isinstance(listener, OSError):
            _, status = os.waitpid(pid, 0)
            if exit_code(status) == EXIT_NOT_STARTED:
                return EXIT_NOT_STARTED
            return _refuse(f"the kernel refuses seccomp user notification ({listener.strerror})")
        served = Served.of(device_paths)
        dispatcher = Dispatcher(
            listener,
            HostProcesses(),
            machine,
            served,
            lambda path: WorldClient(world_socket, module, path, timeout_s),
        )
        return _supervise(pid, listener, dispatcher)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exit_code(status: int) -> int:
    """A wait status as a shell reports it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _start(
    program: str, argv: Sequence[str], machine: Architecture, mask: set[int] | set[signal.Signals]
) -> tuple[int, Listener | OSError]:
    """Fork; the child filters itself, hands over its listener and becomes the program."""
    installer = FilterInstaller(machine)
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - runs in the forked child
        _become(program, argv, installer, theirs, parent, mask)
    theirs.close()
    with ours:
        data, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
    if not descriptors:
        code = int(data or b"0") or errno.EIO
        return pid, OSError(code, os.strerror(code))
    try:
        mem.ProcessMemory(pid).close()
    except OSError as e:
        os.close(descriptors[0])
        os.kill(pid, signal.SIGKILL)
        return pid, e
    return pid, Listener(descriptors[0])


def _become(
    program: str,
    argv: Sequence[str],
    installer: FilterInstaller,
    sock: socket.socket,
    parent: int,
    mask: set[int] | set[signal.Signals],
) -> NoReturn:  # pragma: no cover - runs in the forked child
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(EXIT_NOT_STARTED)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would keep that
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            listener = installer.install()
        except OSError as e:
            sock.send(str(e.errno).encode())
            os._exit(EXIT_REFUSED)
        socket.send_fds(sock, [b"ok"], [listener])
        os.close(listener)
        os.execv(program, list(argv))
    except OSError as e:
        os.write(2, f"qmodd sim exec: {program}: {e.strerror}\n".encode())
    finally:
        os._exit(EXIT_NOT_STARTED)


def _supervise(pid: int, listener: Listener, dispatcher: Dispatcher) -> int:
    thread = threading.Thread(target=_answer_all, args=(dispatcher, pid), name="notifications", daemon=True)
    thread.start()
    try:
        return _wait(pid)
    finally:
        listener.wake()
        thread.join()
        dispatcher.close()
        listener.close()


def _answer_all(dispatcher: Dispatcher, pid: int) -> None:
    try:
        dispatcher.run()
    except Exception:
        log.exception("supervision failed; ending the program, which could make no system call any more")
        os.kill(pid, signal.SIGKILL)


def _wait(pid: int) -> int:
    """Pass signals on until the child has ended."""
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return exit_code(status)
        info = signal.sigtimedwait(_SIGNALS, _LOOK_S)
        if info is None or info.si_signo == signal.SIGCHLD:
            continue
        if info.si_signo == signal.SIGINT and info.si_code == _SI_KERNEL:
            continue  # Ctrl-C: the terminal has sent it to the child, too
        os.kill(pid, info.si_signo)


def _refuse(why: str) -> int:
    _tell(_REFUSAL.format(why=why))
    return EXIT_REFUSED


def _tell(message: str) -> None:
    sys.stderr.write(message + "\n")
