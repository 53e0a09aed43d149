"""Small instruments of the tests' own, to serve over real endpoints."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sim.clock import ManualClock, SimClock

UNION = 34


class Registers:
    """An I2C adapter with one part at 0x48: registers behind a pointer. Writes are remembered."""

    def __init__(self) -> None:
        self.values = {0x00: b"\x0c\x80", 0x0F: b"\x01\x17"}
        self.pointer = 0
        self.seen: list[tuple[int, list[tuple[int, bytes | int]]]] = []
        self.hangs: Callable[[], bool] = lambda: False

    def hanging(self) -> bool:
        return self.hangs()

    def transfer(self, address: int, messages: Sequence[tuple[int, bytes | int]], /) -> list[bytes]:
        self.seen.append((address, list(messages)))
        if address != 0x48:
            raise OSError(errno.ENXIO, "no acknowledge")
        out = []
        for _, body in messages:
            if isinstance(body, int):
                out.append((self.values.get(self.pointer, b"\0") * body)[:body])
            elif body:
                self.pointer = body[0]
                if len(body) > 1:
                    self.values[self.pointer] = body[1:]
        return out

    def smbus(self, address: int, read: int, command: int, size: int, data: bytes, pec: bool, /) -> bytes:
        count = {2: 1, 3: 2}.get(size, data[0] if data else 1)
        if not read:
            self.transfer(address, [(0, bytes([command]) + (data[1 : 1 + count] if size == 8 else data[:count]))])
            return data.ljust(UNION, b"\0")
        (reply,) = self.transfer(address, [(0, bytes([command])), (1, count)])
        return ((bytes([count]) if size == 8 else b"") + reply).ljust(UNION, b"\0")


class Inverter:
    """An SPI part that answers with the complement of what it hears. Frames are remembered."""

    def __init__(self) -> None:
        self.frames: list[tuple[bytes, int, int]] = []
        self.hangs: Callable[[], bool] = lambda: False

    def hanging(self) -> bool:
        return self.hangs()

    def transfer(self, tx: bytes, mode: int, hz: int, /) -> bytes:
        self.frames.append((tx, mode, hz))
        return bytes(b ^ 0xFF for b in tx)


class Echo:
    """A line that says what it hears, `delay_s` of world time later."""

    def __init__(self, clock: SimClock | None = None, delay_s: float = 0.0) -> None:
        self._clock = clock or ManualClock()
        self._delay_s = delay_s
        self.present = True
        self._queue: list[tuple[float, bytes]] = []

    def feed(self, data: bytes, /) -> None:
        self._queue.append((self._clock.now() + self._delay_s, data))

    def take(self) -> bytes:
        out = b""
        while self._queue and self._queue[0][0] <= self._clock.now():
            out += self._queue.pop(0)[1]
        return out

    @property
    def due(self) -> float | None:
        return self._queue[0][0] if self._queue else None


class Counter:
    """A SCPI instrument; executed messages are remembered."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.late_s = 0.0
        self.present = True

    def execute(self, message: bytes, /) -> bytes | None:
        self.seen.append(message)
        head, _, rest = message.strip(b"\r\n").partition(b" ")
        if head == b"*IDN?":
            return b"QM,COUNTER,1,1.0\n"
        if head == b"BLOC?":
            n = int(rest)
            return b"#9%09d" % n + (bytes(range(256)) * (n // 256 + 1))[:n]
        if head == b"LENG?":
            return str(len(message)).encode()
        return None


class Lines:
    """A stream that says what was put into it."""

    def __init__(self) -> None:
        self.waiting = b""

    def stream_lines(self, now: float, /) -> bytes:
        out, self.waiting = self.waiting, b""
        return out


class StillWorld:
    """A world without physics: counts how often it is looked at."""

    def __init__(self, drawn: Sequence[float] = ()) -> None:
        self.drawn = list(drawn)
        self.pumped: list[float] = []

    def pump(self, max_seconds: float, /) -> float:
        self.pumped.append(max_seconds)
        return self.drawn.pop(0) if self.drawn else 0.0


@dataclass
class Bench:
    """A rig of these."""

    i2c: dict[int, Registers] = field(default_factory=lambda: {1: Registers(), 2: Registers()})
    spi: dict[tuple[int, int], Inverter] = field(default_factory=lambda: {(0, 0): Inverter()})
    serial: dict[str, Echo] = field(default_factory=lambda: {"tec": Echo()})
    scpi: dict[str, Counter] = field(default_factory=lambda: {"source": Counter()})
    tcp: dict[str, Echo | Lines] = field(default_factory=lambda: {"snspd": Echo(), "snspd_counts": Lines()})
    raw_scpi: frozenset[str] = frozenset()
    ticks: int = 0

    def tick(self) -> None:
        self.ticks += 1
