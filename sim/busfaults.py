"""Faults of the buses: seeded, scripted "at t, for d, on x, kind"; the script itself is the scenario's fault schedule.

Targets are `<module>.<bus>` or `<module>.<part>`, e.g. `alice.i2c1`, `alice.tmp117`, `bob.tagger`. What a kind does:

| kind    | I2C                    | SPI                       | serial, TCP, VISA                          |
|---------|------------------------|---------------------------|--------------------------------------------|
| nack    | ENXIO                  | part ignores the frame    | request is lost                            |
| crc     | one bit of the answer flips, on every kind of bus                                              |
| stuck   | ETIMEDOUT (line low)   | reads all ones            | reply is lost                              |
| late    | ETIMEDOUT from 1 s on  | no effect                 | reply comes `value` s later (default 0.5)  |
| garbage | random bytes are read  | random bytes are read     | reply is replaced by random bytes          |
| hang    | ETIMEDOUT              | reads zeros               | request is lost                            |
| stale   | the answer is the last one to the same request; on `tec` its readings stand still           |
| unplug  | ENXIO                  | reads all ones            | silence; in process the library's own error |

`unplug` and `reset` act on parts: a part that comes back has lost its registers, as after any loss of supply.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol
from zlib import crc32

import numpy as np

from sim.clock import SimClock

KINDS = ("nack", "crc", "stuck", "late", "garbage", "hang", "stale")
REMEMBERED = 256  # answers to different requests; a DAC is never asked the same twice
DEFAULT_LATE_S = 0.5


class ScriptedFault(Protocol):
    @property
    def value(self) -> float | None: ...


class Schedule(Protocol):
    """What the buses ask of the fault schedule; `sim.faults.FaultSchedule` is one."""

    def active(self, kind: str, target: str, t: float) -> ScriptedFault | None: ...
    def strikes(self, kind: str, target: str, t: float) -> ScriptedFault | None: ...
    def under(self, prefix: str, t: float) -> Iterator[tuple[str, str, ScriptedFault]]: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Effect:
    """What befalls one transaction."""

    kinds: frozenset[str] = field(default_factory=frozenset)
    late_s: float = 0.0

    def __contains__(self, kind: str) -> bool:
        return kind in self.kinds


NO_EFFECT = Effect()


class BusFaults:
    """One module's view of the schedule, with a seeded source for the bits that faults destroy."""

    def __init__(self, clock: SimClock, module: str, schedule: Schedule | None = None, seed: int = 0) -> None:
        self._clock = clock
        self._module = module
        self._schedule = schedule
        self._answers: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        self._random = np.random.Generator(np.random.Philox(key=[seed, crc32(f"bus faults {module}".encode())]))

    @property
    def quiet(self) -> bool:
        """True where nothing is scripted, so that a transaction need not ask."""
        return self._schedule is None or not len(self._schedule)

    def strike(self, *targets: str) -> Effect:
        """What befalls one transaction on these targets (its bus and its part); draws where chance decides."""
        if self._schedule is None or not len(self._schedule):
            return NO_EFFECT
        now = self._clock.now()
        kinds, late = set(), 0.0
        for kind in KINDS:
            for target in targets:
                fault = self._schedule.strikes(kind, f"{self._module}.{target}", now)
                if fault is None:
                    continue
                kinds.add(kind)
                if kind == "late":
                    late = max(late, DEFAULT_LATE_S if fault.value is None else fault.value)
        return Effect(frozenset(kinds), late) if kinds else NO_EFFECT

    def active(self, kind: str, *targets: str) -> bool:
        """True while a fault of this kind holds on any of the targets; draws nothing."""
        if self._schedule is None:
            return False
        now = self._clock.now()
        return any(self._schedule.active(kind, f"{self._module}.{t}", now) is not None for t in targets)

    def answer(self, effect: Effect, part: str, request: bytes, data: bytes) -> bytes:
        """`data`, or while the part is stale what it last answered to the same request."""
        if self.quiet:
            return data
        key = (part, request)
        if "stale" in effect:
            return self._answers.setdefault(key, data)
        self._answers[key] = data
        self._answers.move_to_end(key)
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        return data

    def garble(self, effect: Effect, data: bytes) -> bytes:
        """`data` as it arrives: unchanged, one bit flipped (crc), or random (garbage)."""
        if "garbage" in effect:
            return self._random.bytes(len(data))
        if "crc" in effect and data:
            bit = int(self._random.integers(8 * len(data)))
            spoilt = bytearray(data)
            spoilt[bit >> 3] ^= 1 << (bit & 7)
            return bytes(spoilt)
        return data
