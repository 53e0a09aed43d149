"""What can break in the emulator, when: scripted "at t, for d, on x, what", and seeded where chance decides.

One schedule serves the world (fibre, heaters, laser, TEC, detectors), the chips and the buses; each layer asks for
its own kinds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

import numpy as np

# Kinds that the world itself acts on, with the targets they apply to. Other kinds are left to chips and buses.
WORLD_KINDS: dict[str, str] = {
    "cut": "fibre",
    "bend": "fibre (value: extra loss, dB)",
    "bright": "alice.input or bob.input (value: watts of foreign light)",
    "open": "alice.heater.N or bob.heater.N",
    "short": "alice.heater.N or bob.heater.N",
    "railed": "alice.heater.N or bob.heater.N (value: amperes that its source gives whatever is written)",
    "dead": "alice.laser, or alice.photodiode.N or bob.photodiode.N (N: its ADC channel)",
    "plateau": "bob.detector.N (value: factor by which its efficiency curve is wider)",
    "reversed": "alice.tec or bob.tec",
    "fan": "alice.tec or bob.tec (value: factor on the sink's thermal resistance)",
    "latched": "bob.detector.N",
    "jump": "fibre (value: rad by which the phase between the modules steps; several add up)",
    "swapped": "bob.detector (the cables of DX0 and DX1 are exchanged)",
    "stuck": "bob.shutter (value: volts at which it hangs)",
    "walk": "bob.clock (value: frequency walk, 1/sqrt(s))",
    "warm": "bob.cryostat (value: kelvin above its working point)",
}


@dataclass(frozen=True)
class Fault:
    """One line of the script.

    at, duration: s of world time; duration inf lasts for ever. probability: share of the occasions on which it strikes,
    for kinds that act an occasion at a time (a bus transaction); the world's own kinds hold for the whole interval.
    """

    at: float
    kind: str
    target: str
    duration: float = math.inf
    value: float | None = None
    probability: float = 1.0

    def covers(self, t: float) -> bool:
        return self.at <= t < self.at + self.duration

    def number(self, default: float) -> float:
        """`value`, or `default` where the script gives none."""
        return default if self.value is None else self.value


class FaultSchedule:
    """Faults by kind and target. Asking `active` never changes anything; `strikes` draws from a seeded stream."""

    def __init__(self, faults: Iterable[Fault] = (), seed: int = 0) -> None:
        self._faults: dict[tuple[str, str], list[Fault]] = {}
        self._seed = seed
        self._streams: dict[tuple[str, str], np.random.Generator] = {}
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Later entries take precedence where two of one kind and target overlap."""
        self._faults.setdefault((fault.kind, fault.target), []).insert(0, fault)

    def __len__(self) -> int:
        return sum(map(len, self._faults.values()))

    def active(self, kind: str, target: str, t: float) -> Fault | None:
        """The fault of this kind on this target at world time t, s."""
        return next((f for f in self._faults.get((kind, target), ()) if f.covers(t)), None)

    def total(self, kind: str, target: str, t: float) -> float:
        """Sum of the values of all faults of this kind on this target at world time t, s."""
        return math.fsum(f.number(0.0) for f in self._faults.get((kind, target), ()) if f.covers(t))

    def strikes(self, kind: str, target: str, t: float) -> Fault | None:
        """As `active`, for one occasion: true with the fault's probability, repeatably for one seed."""
        fault = self.active(kind, target, t)
        if fault is None or fault.probability >= 1.0:
            return fault
        key = (kind, target)
        if key not in self._streams:
            words = [self._seed & 0xFFFFFFFFFFFFFFFF, crc32(f"fault {kind} {target}".encode())]
            self._streams[key] = np.random.Generator(np.random.Philox(key=words))
        return fault if self._streams[key].random() < fault.probability else None

    def next_edge(self, t: float) -> float:
        """First time after t, s, at which any fault begins or ends; inf when there is none."""
        edges = (e for fs in self._faults.values() for f in fs for e in (f.at, f.at + f.duration))
        return min((e for e in edges if e > t), default=math.inf)
