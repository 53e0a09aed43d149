"""Small stand-ins for the library objects, enough to drive the buses by hand."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from drivers.bus.libraries import Libraries
from drivers.bus.pool import BusPool


class Clock:
    """Monotonic seconds, moved by hand."""

    def __init__(self) -> None:
        self.t = 100.0

    def __call__(self) -> float:
        return self.t


class Chip(Protocol):
    def write(self, data: bytes) -> None: ...
    def read(self, length: int) -> bytes: ...


class Smbus:
    """An adapter with chips by address; `fail` is raised once per entry before a transaction."""

    def __init__(self, chips: dict[int, Chip]) -> None:
        self.chips = chips
        self.pec = 0
        self.fail: list[Exception] = []
        self.closed = False

    def _chip(self, address: int) -> Chip:
        if self.fail:
            raise self.fail.pop(0)
        if address not in self.chips:
            raise OSError(errno.ENXIO, "No such device or address")
        return self.chips[address]

    def read_i2c_block_data(self, i2c_addr: int, register: int, length: int, force: bool | None = None) -> list[int]:
        chip = self._chip(i2c_addr)
        chip.write(bytes([register]))
        return list(chip.read(length))

    def write_i2c_block_data(
        self, i2c_addr: int, register: int, data: Sequence[int], force: bool | None = None
    ) -> None:
        self._chip(i2c_addr).write(bytes([register, *data]))

    def i2c_rdwr(self, *i2c_msgs: Any) -> None:
        for msg in i2c_msgs:
            chip = self._chip(msg.addr)
            if msg.flags & 1:
                for i, byte in enumerate(chip.read(msg.len)):
                    msg.buf[i] = byte
            else:
                chip.write(bytes(list(msg)))

    def close(self) -> None:
        self.closed = True


class Registers:
    """A chip with registers of `width` bytes behind a pointer, big-endian; `log` keeps writes in order."""

    def __init__(self, values: dict[int, bytes]) -> None:
        self.values = values
        self.pointer = 0
        self.log: list[tuple[int, bytes]] = []

    def write(self, data: bytes) -> None:
        self.pointer = data[0]
        if len(data) > 1:
            self.log.append((data[0], data[1:]))
            self.stored(data[0], data[1:])

    def stored(self, register: int, data: bytes) -> None:
        self.values[register] = data

    def read(self, length: int) -> bytes:
        return self.values.get(self.pointer, b"").ljust(length, b"\0")[:length]


class Spi:
    """A chip select with a frame handler."""

    def __init__(self, transfer: Callable[[bytes], bytes]) -> None:
        self.mode = 0
        self.max_speed_hz = 0
        self.transfer = transfer
        self.sent: list[bytes] = []
        self.closed = False

    def xfer2(self, values: Sequence[int]) -> Sequence[int]:
        self.sent.append(bytes(values))
        return list(self.transfer(bytes(values)))

    def close(self) -> None:
        self.closed = True


class Serial:
    """A line with a device: `answer(request)` gives bytes at once; `late` arrive just before the next request's answer
    but after its flush, as a reply does that was slower than the time-out."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.timeout: float | None = None
        self.answer = answer
        self.pending = b""
        self.late = b""
        self.sent: list[bytes] = []
        self.flushes = 0
        self.closed = False

    def write(self, b: bytes, /) -> int | None:
        self.sent.append(bytes(b))
        self.pending += self.late
        self.late = b""
        self.pending += self.answer(bytes(b))
        return len(b)

    def read(self, size: int = 1, /) -> bytes:
        data, self.pending = self.pending[:size], self.pending[size:]
        return data

    def read_until(self, expected: bytes = b"\n", size: int | None = None) -> bytes:
        at = self.pending.find(expected)
        whole = len(self.pending) if at < 0 else at + len(expected)
        return self.read(whole if size is None else min(whole, size))

    def reset_input_buffer(self) -> None:
        self.flushes += 1
        self.pending = b""

    def close(self) -> None:
        self.closed = True


class Visa:
    """A message-based session over `execute(message) -> reply or None`; no reply makes the read time out."""

    def __init__(self, execute: Callable[[bytes], bytes | None]) -> None:
        self.timeout = 0.0
        self.chunk_size = 0
        self.execute = execute
        self.replies: list[bytes] = []
        self.sent: list[bytes] = []
        self.closed = False

    def write_raw(self, message: bytes) -> int:
        self.sent.append(message)
        reply = self.execute(message)
        if reply is not None:
            self.replies.append(reply)
        return len(message)

    def read_raw(self, size: int | None = None) -> bytes:
        if not self.replies:
            raise TimeoutError("no message")
        return self.replies.pop(0)

    def clear(self) -> None:
        self.replies.clear()

    def close(self) -> None:
        self.closed = True


class Socket:
    """A connection; `feed` are the pieces that recv gives, `answer(sent)` adds to them."""

    def __init__(self, answer: Callable[[bytes], list[bytes]] = lambda sent: []) -> None:
        self.answer = answer
        self.feed: list[bytes] = []
        self.sent: list[bytes] = []
        self.closed = False

    def settimeout(self, value: float | None, /) -> None:
        assert value is None or value > 0

    def sendall(self, data: bytes, /) -> None:
        self.sent.append(data)
        self.feed += self.answer(data)

    def recv(self, bufsize: int, /) -> bytes:
        if not self.feed:
            raise TimeoutError("timed out")
        return self.feed.pop(0)

    def close(self) -> None:
        self.closed = True


def _absent(*where: object) -> Any:
    raise OSError(errno.ENOENT, f"no bus at {where}")


def make_pool(
    clock: Callable[[], float],
    *,
    i2c: Callable[[int], Any] = _absent,
    spi: Callable[[int, int], Any] = _absent,
    serial: Callable[[str, int], Any] = _absent,
    visa: Callable[[str], Any] = _absent,
    tcp: Callable[[str, int], Any] = _absent,
    threaded: bool = False,
) -> BusPool:
    return BusPool(Libraries(i2c, spi, serial, visa, tcp, threaded), clock)
