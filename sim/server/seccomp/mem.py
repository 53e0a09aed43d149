"""Another process's memory and descriptors through /proc. Thread ids serve as well as process ids."""

from __future__ import annotations

import errno
import os
from types import TracebackType
from typing import Protocol


class Memory(Protocol):
    """What the ioctl handlers need: follow the caller's pointers."""

    def read(self, address: int, count: int) -> bytes:
        """Exactly `count` bytes; raises OSError(EFAULT)."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Raises OSError(EFAULT)."""
        ...


class ProcessMemory:
    """/proc/PID/mem, opened for one request.

    It pins the address space of that moment: a process id that is used again, or an exec, cannot redirect it, provided
    that the notification is found valid after opening.
    """

    def __init__(self, pid: int) -> None:
        self._fd = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)

    def read(self, address: int, count: int) -> bytes:
        data = self.read_some(address, count)
        if len(data) != count:
            raise OSError(errno.EFAULT, "the caller's pointer leads nowhere")
        return data

    def read_some(self, address: int, count: int) -> bytes:
        """Up to `count` bytes, fewer at the end of a mapping; b"" where nothing is mapped."""
        try:
            return os.pread(self._fd, count, address) if count else b""
        except (OSError, OverflowError):  # unmapped addresses give EIO; those above 2**63 do not fit an offset
            return b""

    def write(self, address: int, data: bytes) -> None:
        try:
            written = os.pwrite(self._fd, data, address) if data else 0
        except (OSError, OverflowError):
            written = -1
        if written != len(data):
            raise OSError(errno.EFAULT, "the caller's pointer leads nowhere")

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> ProcessMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def descriptor_target(pid: int, descriptor: int) -> str:
    """What a descriptor of another process points to, e.g. "/dev/pts/3"; "" when it is not open."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{descriptor}")
    except OSError:
        return ""


def is_open(pid: int, descriptor: int) -> bool:
    return os.path.lexists(f"/proc/{pid}/fd/{descriptor}")
