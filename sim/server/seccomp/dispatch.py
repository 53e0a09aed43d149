"""What happens to each stopped call: ours are answered, by a worker thread a device; all others run on."""

from __future__ import annotations

import errno
import fnmatch
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sim.server.busproto import Open, Operation, Reply
from sim.server.seccomp.client import WorldGone
from sim.server.seccomp.files import I2C_PREFIX, SPI_PREFIX, OpenFile, OpenFiles, stand_in
from sim.server.seccomp.filter import FD_COUNT, FIRST_FD, Architecture, Call
from sim.server.seccomp.mem import Memory
from sim.server.seccomp.notify import Notification
from sim.server.seccomp.tty_ioctl import Pty, TtyLine

log = logging.getLogger(__name__)

_LOOK = 64
"""Bytes of a path that are looked at; the paths of bus devices are far shorter."""
_MAX_TRANSFER = 8192
_TTY_TYPE = 0x54


class Kernel(Protocol):
    """What is needed of notify.Listener."""

    def receive(self) -> Notification | None: ...
    def answer(self, key: int, value: int) -> None: ...
    def let_through(self, key: int) -> None: ...
    def valid(self, key: int) -> bool: ...
    def answer_with_file(self, key: int, source: int, number: int, *, close_on_exec: bool) -> None: ...


class CallerMemory(Memory, Protocol):
    def read_some(self, address: int, count: int) -> bytes: ...


class Processes(Protocol):
    """What is needed of /proc."""

    def memory(self, pid: int) -> AbstractContextManager[CallerMemory]: ...
    def target(self, pid: int, descriptor: int) -> str: ...
    def is_open(self, pid: int, descriptor: int) -> bool: ...
    def pty(self, path: str) -> Pty: ...


class World(Protocol):
    """What is needed of client.WorldClient."""

    def call(self, operation: Operation, wanted: Callable[[], bool]) -> Reply: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Served:
    """Paths that the supervisor stands in for: patterns of bus devices, and links to the ptys of serial lines."""

    buses: tuple[str, ...]
    lines: tuple[Path, ...]

    @classmethod
    def of(cls, paths: Iterable[str]) -> Served:
        buses, lines = [], []
        for path in paths:
            if path.startswith((I2C_PREFIX, SPI_PREFIX)):
                buses.append(path)
            else:
                lines.append(Path(path))
        return cls(tuple(buses), tuple(lines))

    def is_bus(self, path: str) -> bool:
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in self.buses)

    def is_line(self, target: str) -> bool:
        """Links are followed anew each time: a restarted world has other ptys."""
        return target.startswith("/dev/pts/") and any(os.path.realpath(link) == target for link in self.lines)


class Worker:
    """A device's thread and connection; a bus that hangs keeps nothing else waiting."""

    def __init__(self, path: str, world: World) -> None:
        self.world = world
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=path, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    def stop(self) -> None:
        """End a call that waits for the world; those queued behind it end with EIO."""
        self._jobs.put(None)
        self.world.interrupt()
        self._thread.join()
        self.world.close()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


@dataclass
class Dispatcher:
    """Answers notifications until the listener has no more of them."""

    kernel: Kernel
    processes: Processes
    machine: Architecture
    served: Served
    connect: Callable[[str], World]
    files: OpenFiles = field(default_factory=OpenFiles)
    _workers: dict[str, Worker] = field(default_factory=dict)
    _ttys: dict[str, TtyLine] = field(default_factory=dict)
    _placing: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        while (n := self.kernel.receive()) is not None:
            self.handle(n)

    def close(self) -> None:
        """Stop the workers; calls still waiting end with EIO."""
        for worker in self._workers.values():
            worker.stop()

    def handle(self, n: Notification) -> None:
        """One stopped call; returns at once, or after work that no bus can delay."""
        call = self.machine.calls.get(n.number) if n.arch == self.machine.audit else None
        if call in (Call.OPEN, Call.OPENAT, Call.OPENAT2):
            self._handle_open(n, call)
        elif call is Call.IOCTL and n.args[1] >> 8 & 0xFF == _TTY_TYPE:
            self._handle_tty(n)
        elif call is not None:
            self._handle_transfer(n, call)
        else:
            self.kernel.let_through(n.id)

    def _handle_open(self, n: Notification, call: Call) -> None:
        path_at = n.args[0] if call is Call.OPEN else n.args[1]
        try:
            with self.processes.memory(n.pid) as memory:
                text, _, _ = memory.read_some(path_at, _LOOK).partition(b"\0")
                path = text.decode(errors="replace")
                if not self.served.is_bus(path):
                    self.kernel.let_through(n.id)
                    return
                flags = n.args[1] if call is Call.OPEN else n.args[2]
                if call is Call.OPENAT2:
                    flags = int.from_bytes(memory.read(flags, 8), "little")
        except OSError as e:  # the caller is gone, or its memory is not ours to read
            log.debug("open by %d not looked at: %s", n.pid, e)
            self.kernel.let_through(n.id)
            return
        worker = self._worker(path)
        worker.submit(lambda: self._open(n, path, worker.world, close_on_exec=bool(flags & os.O_CLOEXEC)))

    def _handle_transfer(self, n: Notification, call: Call) -> None:
        file = self.files.find(self.processes.target(n.pid, n.args[0] & 0xFFFFFFFF))
        if file is None:
            self.kernel.let_through(n.id)
            return
        worker = self._worker(file.path)
        worker.submit(lambda: self._answer(n, lambda: self._transfer(n, call, file, worker.world)))

    def _handle_tty(self, n: Notification) -> None:
        target = self.processes.target(n.pid, n.args[0] & 0xFFFFFFFF)
        if not self.served.is_line(target):
            self.kernel.let_through(n.id)
            return
        line = self._ttys.setdefault(target, TtyLine())

        def work() -> int | None:
            with self.processes.memory(n.pid) as memory:
                self._check(n)
                return line.ioctl(n.args[1] & 0xFFFFFFFF, n.args[2], memory, self.processes.pty(target))

        self._answer(n, work)

    def _answer(self, n: Notification, work: Callable[[], int | None]) -> None:
        """Answer with what `work` returns or raises; None lets the kernel make the call."""
        try:
            value = work()
        except OSError as e:
            value = -(e.errno or errno.EIO)
        except Exception:
            # A call that is never answered would stop the program for ever; the log has the reason.
            log.exception("system call %d not served", n.number)
            value = -errno.EIO
        if value is None:
            self.kernel.let_through(n.id)
        else:
            self.kernel.answer(n.id, value)

    def _open(self, n: Notification, path: str, world: World, *, close_on_exec: bool) -> None:
        try:
            world.call(Open(), lambda: self.kernel.valid(n.id))
            self._place(n, path, close_on_exec=close_on_exec)
        except WorldGone:
            self.kernel.answer(n.id, -errno.ENXIO)
        except OSError as e:
            self.kernel.answer(n.id, -(e.errno or errno.EIO))

    def _place(self, n: Notification, path: str, *, close_on_exec: bool) -> None:
        """Give the caller a descriptor of the reserved range. Raises OSError(EMFILE) when there is none left."""
        source = stand_in(self.files.add(path))
        try:
            with self._placing:  # two workers must not choose the same number
                number = next(
                    (k for k in range(FIRST_FD, FIRST_FD + FD_COUNT) if not self.processes.is_open(n.pid, k)), None
                )
                if number is None:
                    raise OSError(errno.EMFILE, f"more than {FD_COUNT} bus devices open")
                self.kernel.answer_with_file(n.id, source, number, close_on_exec=close_on_exec)
        finally:
            os.close(source)

    def _transfer(self, n: Notification, call: Call, file: OpenFile, world: World) -> int:
        def send(operation: Operation) -> Reply:
            return world.call(operation, lambda: self.kernel.valid(n.id))

        with self.processes.memory(n.pid) as memory:
            self._check(n)
            if call is Call.IOCTL:
                return file.state.ioctl(n.args[1] & 0xFFFFFFFF, n.args[2], memory, send)
            count = min(n.args[2], _MAX_TRANSFER)
            if call is Call.WRITE:
                return file.state.write(memory.read(n.args[1], count), send)
            data = file.state.read(count, send)
            memory.write(n.args[1], data)
            return len(data)

    def _check(self, n: Notification) -> None:
        """Once the memory is open: is it still the caller's?"""
        if not self.kernel.valid(n.id):
            raise OSError(errno.ESRCH, "the caller is gone")

    def _worker(self, path: str) -> Worker:
        worker = self._workers.get(path)
        if worker is None:
            worker = self._workers[path] = Worker(path, self.connect(path))
        return worker
