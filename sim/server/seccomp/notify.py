"""The kernel's side of user notification: installing the filter, and receiving and answering stopped calls.

Source: seccomp_unotify(2) and linux/seccomp.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import struct
from dataclasses import dataclass

from sim.server.seccomp.filter import Architecture, assemble, program

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_NEW_LISTENER = 1 << 3
_WAIT_KILLABLE_RECV = 1 << 5  # kernel 5.19: once received, only a fatal signal interrupts the caller
_FLAG_CONTINUE = 1
_ADDFD_SETFD, _ADDFD_SEND = 1, 2
_RECV, _SEND, _ID_VALID, _ADDFD = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103
_NOTIFICATION = struct.Struct("<QIIiIQ6Q")
_RESPONSE = struct.Struct("<QqiI")
_ADD = struct.Struct("<QIIII")


class FilterInstaller:
    """Everything that installing needs, prepared before a fork, so that the child only makes two system calls."""

    def __init__(self, machine: Architecture) -> None:
        code = assemble(program(machine))
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._buffer = ctypes.create_string_buffer(code, len(code))
        head = struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(self._buffer))
        self._program = ctypes.create_string_buffer(head, len(head))
        self._number = machine.seccomp

    def install(self) -> int:
        """Filter the calling thread and all that it starts from now on; returns the listener's descriptor.

        Raises OSError where the kernel refuses.
        """
        self._libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        for flags in (_NEW_LISTENER | _WAIT_KILLABLE_RECV, _NEW_LISTENER):
            listener = int(self._libc.syscall(self._number, _SET_MODE_FILTER, flags, self._program))
            if listener >= 0:
                return listener
            if ctypes.get_errno() != errno.EINVAL:
                break
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@dataclass(frozen=True)
class Notification:
    """One stopped call. `pid` is the thread's id; `args` are the six registers."""

    id: int
    pid: int
    number: int
    arch: int
    args: tuple[int, ...]


class Listener:
    """The listener's descriptor, owned. All methods may be called from any thread, `receive` from one."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._wake_read, self._wake_write = os.pipe()
        self._poll.register(self._wake_read, select.POLLIN)

    def receive(self) -> Notification | None:
        """Wait for the next stopped call; None when nobody is filtered any more, or after `wake`."""
        while True:
            events = dict(self._poll.poll())
            if self._wake_read in events or not events.get(self._fd, 0) & select.POLLIN:
                return None
            buffer = bytearray(_NOTIFICATION.size)
            try:
                fcntl.ioctl(self._fd, _RECV, buffer)
            except OSError as e:
                if e.errno in (errno.ENOENT, errno.EINTR):  # the caller was interrupted or killed before we took it
                    continue
                raise
            key, pid, _flags, number, arch, _ip, *args = _NOTIFICATION.unpack(buffer)
            return Notification(key, pid, number, arch, tuple(args))

    def wake(self) -> None:
        """Make `receive` return None, now and from now on."""
        os.write(self._wake_write, b"x")

    def answer(self, key: int, value: int) -> None:
        """The call returns `value`; a negative one is an errno."""
        self._send(key, max(value, 0), min(value, 0), 0)

    def let_through(self, key: int) -> None:
        """The kernel makes the call as if there were no supervisor."""
        self._send(key, 0, 0, _FLAG_CONTINUE)

    def valid(self, key: int) -> bool:
        """False when the caller is gone, and with it any meaning of its process id."""
        try:
            fcntl.ioctl(self._fd, _ID_VALID, struct.pack("<Q", key))
        except OSError as e:
            if e.errno == errno.ENOENT:
                return False
            raise
        return True

    def answer_with_file(self, key: int, source: int, number: int, *, close_on_exec: bool) -> None:
        """The call returns descriptor `number`, a duplicate of our `source` in the caller.

        Raises OSError, e.g. EBADF when the caller's limit does not allow the number. A vanished caller is no error.
        """
        cloexec = os.O_CLOEXEC if close_on_exec else 0
        try:
            fcntl.ioctl(self._fd, _ADDFD, _ADD.pack(key, _ADDFD_SETFD | _ADDFD_SEND, source, number, cloexec))
        except OSError as e:
            if e.errno == errno.ENOENT:
                return
            if e.errno != errno.EINVAL:
                raise
        else:
            return
        try:  # before kernel 5.14: in two steps
            fcntl.ioctl(self._fd, _ADDFD, _ADD.pack(key, _ADDFD_SETFD, source, number, cloexec))
        except OSError as e:
            if e.errno == errno.ENOENT:
                return
            raise
        self.answer(key, number)

    def close(self) -> None:
        for descriptor in (self._fd, self._wake_read, self._wake_write):
            os.close(descriptor)

    def _send(self, key: int, value: int, error: int, flags: int) -> None:
        try:
            fcntl.ioctl(self._fd, _SEND, _RESPONSE.pack(key, value, error, flags))
        except OSError as e:
            if e.errno != errno.ENOENT:  # the caller was interrupted or killed meanwhile
                raise
