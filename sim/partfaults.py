"""Faults inside the electronic parts, scripted through the same schedule as all others.

Targets are `<module>.<part>` and, where a fault is of one channel, `<module>.<part>.<channel>`, with the parts' names
of the rig. The kinds of the buses (`sim.busfaults`) strike transactions, these the part itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol
from zlib import crc32

from sim.busfaults import Schedule
from sim.trouble import Trouble

# part -> kind -> place, what it does (value: what the number is; in brackets what it is without one).
DAC_KINDS = {
    "stuck": ".N: the output keeps a code (value: code [0])",
    "offset": ".N: the output is off (value: codes [2000])",
    "gain": ".N: the output is a factor of what it should be (value [0.8])",
    "noisy": ".N: the output wanders from moment to moment (value: codes rms [2000])",
    "swapped": ".N-M: two outputs are exchanged",
    "echo": "bits of what is clocked out are wrong (value: mask of each byte [0x10])",
}
PART_KINDS: dict[str, dict[str, str]] = {
    "ltc2672": {**DAC_KINDS, "flags": "bits of the fault register that always stand (value: mask [0x20])"},
    "ltc2668": DAC_KINDS,
    "ads131m08": {
        "stuck": ".N: the same code whatever the input (value [0])",
        "offset": ".N: the input is off (value: V [0.02])",
        "gain": ".N: factor on the input's range (value [0.9])",
        "noisy": ".N: noise at the input (value: V rms [0.02])",
        "reference": "the reference is off, so every reading and not the test signal (value: factor [1.05])",
        "upset": "frames arrive with a bit flipped (value: share of them [0.3])",
    },
    "ina228": {
        "offset": "the current is off (value: A [0.01])",
        "gain": "factor on the current (value [0.8])",
        "voltage": "factor on the voltage (value [0.8])",
        "frozen": "results stand still",
    },
    "tmp117": {
        "offset": "reads too much (value: K [3])",
        "noisy": "reading wanders (value: K rms [0.5])",
        "frozen": "the result stands still",
        "unready": "never ends a conversion",
    },
    "pca9535": {
        "high": ".N: the pin is tied to the supply",
        "low": ".N: the pin is tied to ground",
        "floating": ".N: the pin's driver is off, whatever the direction says",
    },
    "watchdog": {"never": "does not trip"},
    "pmbus": {
        "sagging": "output low (value: V below [1.5])",
        "rising": "output high (value: V above [1.5])",
        "input": "input voltage (value: V [38])",
        "hot": "hotter than it should be (value: K [45])",
        "slow": "the fan turns too slowly (value: factor on its speed [0.4]; 0: it stands)",
    },
    "eeprom24c64": {
        "flipped": ".N: bits of byte N have flipped (value: mask [1])",
        "protected": "the write-protect pin is high",
    },
    "tec": {
        "error": "protection has struck (value: number [30])",
        "forgetful": "set parameters of the regulator are not kept",
        "offset": "its thermistor reads too much (value: K [3])",
        "weak": "its output stage gives no more than (value: A [0.05])",
    },
    "laser": {
        "fatal": "fatal status bits (value: mask of 11-8 [0x0200])",
        "alarm": "warning status bits (value: mask of 11-8 [0x0200])",
        "weak": "emits too little (value: dB [3])",
        "detuned": "emits at another frequency than set (value: Hz [20e9])",
        "unlit": "never ends what it began when enabled",
    },
    "source": {
        "stuck": ".basis, .value or .decoy: a random bit stands still (value: 0 or 1 [0])",
        "biased": ".basis, .value or .decoy: more ones than set (value: share of zeros that become ones [0.3])",
        "weak": ".carver, .state or .decoy: factor on the drive's amplitude (value [0]: dead)",
        "randomiser": "factor on the randomiser's phases (value [0.3])",
        "unlocked": "its reference is not locked",
        "health": "its random number generator has failed its own health test",
        "period": "slots have another length (value: factor [1.01])",
    },
    "tagger": {
        "dead": ".N: an input hears nothing",
        "noisy": ".N: an input clicks by itself (value: clicks/s [20000])",
        "unlocked": "its reference is not locked",
        "overflow": "its memory holds few records (value [64])",
    },
    "snspd": {
        "dead": ".N: a channel's bias source gives nothing",
        "offset": ".N: a channel's bias is off (value: uA [3])",
        "silent": ".N: a channel's discriminator counts nothing",
        "frozen": "properties stand still",
    },
    "counter": {"gate": "factor on its gate time (value [0.5])", "dead": ".N: an input hears nothing"},
    "cryostat": {"open": "sensor of input A is open", "heater": "its heater is open"},
}


class Rig(Protocol):
    """What is asked of `sim.rig.Rig`."""

    def __iter__(self) -> Iterator[str]: ...
    def part(self, name: str) -> Any: ...

    @property
    def watchdog(self) -> Any: ...


class PartFaults:
    """One module's view of the schedule. `follow` brings every part's trouble up to now."""

    def __init__(self, module: str, schedule: Schedule | None, seed: int = 0) -> None:
        self._module = module
        self._schedule = schedule
        self._seed = seed
        self._known: dict[str, Trouble] = {}

    def follow(self, rig: Rig, now: float) -> None:
        """To be called when time or the script has moved."""
        if self._schedule is None:
            return
        for name, trouble in self._troubles(rig).items():
            found = self._schedule.under(f"{self._module}.{name}", now)
            kinds = PART_KINDS[name]
            trouble.set({(kind, place): f.value for kind, place, f in found if fits(kinds, kind, place)})

    def _troubles(self, rig: Rig) -> dict[str, Trouble]:
        if not self._known:
            parts = {name: rig.part(name) for name in rig} | {"watchdog": rig.watchdog}
            self._known = {name: part.trouble for name, part in parts.items() if name in PART_KINDS}
            for name, trouble in self._known.items():
                trouble.seed((self._seed, crc32(f"part faults {self._module} {name}".encode())))
        return self._known


def fits(kinds: dict[str, str], kind: str, place: str) -> bool:
    """Whether a kind is one of the part, at a channel where it is of channels: "stuck" of a whole part is its bus's."""
    return kind in kinds and kinds[kind].startswith(".") == bool(place)
