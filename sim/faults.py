"""What can break in the emulator, when: scripted "at t, for d, on x, what", and seeded where chance decides.

One schedule serves the world (fibre, heaters, laser, TEC, detectors), the chips and the buses; each layer asks for
its own kinds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from zlib import crc32

import numpy as np

_ROUNDING = 1e-9

# Kinds that the world itself acts on: targets, with what `value` is for them, in brackets what it is without one. N is
# a channel: of a heater 0 to 4 (a swapped one 0 to 3), a photodiode's of the ADC, of biases, modulators and RF drives
# 0 carver, 1 state, 2 decoy, of detectors 0 DZ, 1 DX0, 2 DX1. PATH: sim.physics.defects. Other kinds and other targets
# are left to chips and buses.
WORLD_KINDS: dict[str, dict[str, str]] = {
    "cut": {"fibre": ""},
    "bend": {"fibre": "extra loss, dB [3]"},
    "jump": {"fibre": "rad by which the phase between the modules steps; several add up"},
    "bright": {"alice.input": "watts of foreign light [1e-6]", "bob.input": "watts of foreign light [1e-6]"},
    "loss": {"alice.path.PATH": "extra loss, dB [3]", "bob.path.PATH": "extra loss, dB [3]"},
    "open": {
        "SIDE.heater.N": "",
        "alice.rf.N": "the modulator is not driven",
        "SIDE.thermistor": "reads -60 C",
        "SIDE.peltier": "no current flows",
    },
    "short": {"SIDE.heater.N": "", "SIDE.photodiode.N": "A into its amplifier [1e-3]"},
    "railed": {"SIDE.heater.N": "A that its source gives whatever is written [0.033]"},
    "drifted": {"SIDE.heater.N": "factor on its cold resistance [1.2]"},
    "slow": {"SIDE.heater.N": "its lag, s [3]", "alice.attenuator": "its lag, s [5]"},
    "weak": {
        "SIDE.heater.N": "factor on its power for pi [1.6]",
        "alice.modulator.N": "factor on its volts for pi, bias and RF [1.5]",
        "bob.diode": "factor on its power [0.3]",
        "bob.detector.N": "factor on its switching current [0.6]",
        "SIDE.peltier": "factor on what it pumps; its resistance grows as much [0.4]",
    },
    "swapped": {
        "SIDE.heater.N": "channel with which its cable is exchanged [N + 1]",
        "SIDE.photodiode.N": "channel with which its cable is exchanged [N + 1]",
        "alice.bias.N": "channel with which its cable is exchanged [N + 1]",
        "bob.detector": "the cables of DX0 and DX1 are exchanged",
    },
    "dead": {"alice.laser": "", "SIDE.photodiode.N": "", "bob.detector.N": "", "bob.diode": ""},
    "insensitive": {
        "SIDE.photodiode.N": "factor on its responsivity [0.5]",
        "bob.detector.N": "factor on its efficiency [0.5]",
    },
    "leaky": {"SIDE.photodiode.N": "extra dark current, A [2e-8]", "bob.detector.N": "factor on its darks [50]"},
    "noisy": {
        "SIDE.photodiode.N": "relative noise of what it gives, rms [0.1]",
        "alice.laser": "relative noise of its power, rms [0.1]",
        "bob.detector.N": "noise of its bias reading, V rms [0.02]",
        "SIDE.thermistor": "noise of its reading, K rms [0.1]",
    },
    "stuck": {
        "SIDE.photodiode.N": "A that it gives [1e-8]",
        "alice.bias.N": "V at which it stands [where it is]",
        "alice.attenuator": "V at which it hangs [where it is]",
        "bob.shutter": "V at which it hangs [as last driven]",
        "bob.diode_shutter": "V at which it hangs [where it is]; the interlock no longer closes it",
    },
    "extinction": {"alice.modulator.N": "its extinction ratio, dB [10]"},
    "offset": {"alice.attenuator": "extra loss, dB [3]", "SIDE.thermistor": "reads too much, K [3]"},
    "table": {"alice.attenuator": "factor on the dB of its table [0.8]"},
    "dim": {"alice.laser": "dB that its power is lower [6]"},
    "hop": {"alice.laser": "Hz by which it has hopped to another mode [40e9]"},
    "plateau": {"bob.detector.N": "factor by which its efficiency curve is wider [8]"},
    "latched": {"bob.detector.N": ""},
    "normal": {"bob.detector.N": "does not superconduct: latched whatever is done"},
    "reversed": {"SIDE.tec": ""},
    "fan": {"SIDE.tec": "factor on the sink's thermal resistance [4]"},
    "walk": {"bob.clock": "frequency walk, 1/sqrt(s) [3e-10]"},
    "warm": {"bob.cryostat": "kelvin above its working point [1]"},
}


def understood(kind: str, target: str) -> bool:
    """Whether the world acts on a kind at a target; it does not look whether there is such a channel or path."""
    return any(_fits(pattern.split("."), target.split(".")) for pattern in WORLD_KINDS.get(kind, ()))


def _fits(pattern: list[str], target: list[str]) -> bool:
    wild = {"SIDE": ("alice", "bob").__contains__, "N": str.isdecimal, "PATH": str.isidentifier}
    return len(pattern) == len(target) and all(wild.get(p, p.__eq__)(t) for p, t in zip(pattern, target, strict=True))


@dataclass(frozen=True)
class Fault:
    """One line of the script.

    at, duration: s of world time; duration inf lasts for ever. probability: share of the occasions on which it strikes,
    for kinds that act an occasion at a time (a bus transaction); the world's own kinds hold for the whole interval.
    every, share: of a fault that comes and goes, a loose contact: it is there in the first `share` of every `every` s.
    """

    at: float
    kind: str
    target: str
    duration: float = math.inf
    value: float | None = None
    probability: float = 1.0
    every: float = math.inf
    share: float = 1.0

    def covers(self, t: float) -> bool:
        if not self.at <= t < self.at + self.duration:
            return False
        return math.isinf(self.every) or self._turn(t) == 0

    def next_edge(self, t: float) -> float:
        """First time after t, s, at which it begins or ends; inf when there is none."""
        end = self.at + self.duration
        if t < self.at:
            return self.at
        if math.isinf(self.every) or t >= end:
            return end if t < end else math.inf
        period = math.floor((t - self.at) / self.every)
        edges = (self.at + (n + part) * self.every for n in (period, period + 1) for part in (0.0, self.share))
        return min(end, min(e for e in edges if e > t))

    def _turn(self, t: float) -> int:
        """0 in the part of each period in which it is there, 1 in the rest. Just at an edge what begins there counts,
        whatever rounding makes of the time."""
        phase = math.fmod((t - self.at) / self.every + _ROUNDING, 1.0)
        return 0 if phase < self.share else 1

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

    def under(self, prefix: str, t: float) -> Iterator[tuple[str, str, Fault]]:
        """Faults at world time t, s, on a target or on what is named below it: kind, what follows the prefix and its
        dot, and the fault."""
        for (kind, target), faults in self._faults.items():
            if target == prefix or target.startswith(prefix + "."):
                found = next((f for f in faults if f.covers(t)), None)
                if found is not None:
                    yield kind, target[len(prefix) + 1 :], found

    def next_edge(self, t: float) -> float:
        """First time after t, s, at which any fault begins or ends; inf when there is none."""
        return min((f.next_edge(t) for fs in self._faults.values() for f in fs), default=math.inf)
