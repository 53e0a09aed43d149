"""A caller's memory, and a kernel that only records its answers."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sim.server.busproto import Operation, Reply
from sim.server.seccomp.notify import Notification


@contextmanager
def fails(code: int) -> Iterator[None]:
    """The block raises OSError with this errno."""
    try:
        yield
    except OSError as e:
        assert e.errno == code, e  # noqa: PT017 - pytest.raises cannot match an errno
    else:
        raise AssertionError(f"no OSError({errno.errorcode[code]})")


class FakeMemory:
    """Bytes by address, in one block from `base`."""

    def __init__(self, size: int = 8192, base: int = 0x1000) -> None:
        self.base = base
        self.block = bytearray(size)

    def place(self, offset: int, data: bytes) -> int:
        """Put data somewhere; returns its address."""
        self.block[offset : offset + len(data)] = data
        return self.base + offset

    def read_some(self, address: int, count: int) -> bytes:
        at = address - self.base
        return bytes(self.block[at : at + count]) if 0 <= at < len(self.block) else b""

    def read(self, address: int, count: int) -> bytes:
        data = self.read_some(address, count)
        if len(data) != count:
            raise OSError(errno.EFAULT, "bad address")
        return data

    def write(self, address: int, data: bytes) -> None:
        at = address - self.base
        if not 0 <= at <= len(self.block) - len(data):
            raise OSError(errno.EFAULT, "bad address")
        self.block[at : at + len(data)] = data


class FakeWorld:
    """Answers every operation with the next reply, or raises the next error; remembers operations."""

    def __init__(self, *replies: Reply | OSError) -> None:
        self.replies = list(replies)
        self.seen: list[Operation] = []

    def __call__(self, operation: Operation) -> Reply:
        self.seen.append(operation)
        reply = self.replies.pop(0) if self.replies else Reply(0)
        if isinstance(reply, OSError):
            raise reply
        return reply


class FakePty:
    """One termios for both kinds of struct; like a pty it forces 8 bits without parity."""

    def __init__(self) -> None:
        self.settings: dict[int, bytes] = {}

    def get(self, kind: int, size: int) -> bytes:
        return self.settings.get(kind, bytes(size))

    def set(self, kind: int, settings: bytes) -> None:
        self.settings[kind] = settings


@dataclass
class FakeKernel:
    """Records what each notification came to: a value, "through", or ("file", number, close_on_exec)."""

    waiting: list[Notification] = field(default_factory=list)
    outcome: dict[int, object] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)

    def receive(self) -> Notification | None:
        return self.waiting.pop(0) if self.waiting else None

    def answer(self, key: int, value: int) -> None:
        self.outcome[key] = value

    def let_through(self, key: int) -> None:
        self.outcome[key] = "through"

    def valid(self, key: int) -> bool:
        return key not in self.gone

    def answer_with_file(self, key: int, source: int, number: int, *, close_on_exec: bool) -> None:
        self.outcome[key] = ("file", number, close_on_exec)


@dataclass
class FakeProcesses:
    """One caller."""

    space: FakeMemory = field(default_factory=FakeMemory)
    targets: dict[int, str] = field(default_factory=dict)
    line: FakePty = field(default_factory=FakePty)
    readable: bool = True

    @contextmanager
    def memory(self, pid: int) -> Iterator[FakeMemory]:
        if not self.readable:
            raise OSError(errno.EACCES, "not yours")
        yield self.space

    def target(self, pid: int, descriptor: int) -> str:
        return self.targets.get(descriptor, "")

    def is_open(self, pid: int, descriptor: int) -> bool:
        return descriptor in self.targets

    def pty(self, path: str) -> FakePty:
        return self.line
