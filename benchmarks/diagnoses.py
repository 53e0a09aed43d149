"""Modules with one thing broken: what the calibration says instead of storing a wrong number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from benchmarks.rig import Pair, pair, scenario
from calibration.context import CalibrationRefused, LightRefused
from calibration.fit import FitRefused
from calibration.graph import bring_up
from calibration.procedures import alice_graph, bob_graph
from qmodd.control.loop import LoopFault
from sim.loop import SimulatedLoop, run_simulated

# A reading with its unit, and a word that says what it is held against.
READING = re.compile(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?\s?(?:%|mA|uA|A|mV|V|mW|W|ohm|counts/s|C|K|dB|dBm|times)\b")
LIMIT = re.compile(r"\blimit\b|\bleast\b|\bmost\b|\bshould\b|\bexpected\b|\bneeded\b")


@dataclass(frozen=True)
class Case:
    """One broken part: its line of a scenario, and the words that name it."""

    name: str
    on: str
    what: str
    words: tuple[str, ...]
    start_c: float = 29.9


CASES = (
    Case("open heater", "alice.heater.1", "open", ("split", "open")),
    Case("shorted heater", "bob.heater.3", "short", ("combine", "short")),
    Case("dead laser tap", "alice.photodiode.6", "dead", ("pa6", "dead")),
    Case("dead filter tap", "alice.photodiode.0", "dead", ("pa0", "dead")),
    Case("dead interferometer tap", "alice.photodiode.1", "dead", ("pa1", "dead")),
    Case("dead energy tap", "alice.photodiode.3", "dead", ("pa3", "dead")),
    Case("dead shutter tap", "alice.photodiode.4", "dead", ("pa4", "dead")),
    Case("no plateau", "bob.detector.1", "plateau", ("dx0", "plateau")),
    Case("dark fibre", "fibre", "cut", ("no light", "fibre")),
    Case("reversed Peltier", "bob.tec", "reversed", ("polarity", "reversed"), start_c=25.0),
)


@dataclass(frozen=True)
class Diagnosis:
    """What was said; empty where the calibration went through. stored: the refused calibration has a record."""

    case: Case
    reason: str
    stored: bool

    @property
    def names_the_part(self) -> bool:
        return all(w in self.reason.lower() for w in self.case.words)

    @property
    def ok(self) -> bool:
        """Part, reading and limit are named, and nothing wrong was stored."""
        told = bool(READING.search(self.reason)) and bool(LIMIT.search(self.reason))
        return self.names_the_part and told and not self.stored


def diagnose(case: Case, seed: int = 5) -> Diagnosis:
    """Bring a pair up with the part broken from the start."""
    sections: dict[str, Any] = {
        "fault": [{"at": 0.0, "on": case.on, "what": case.what}],
        "start": {"alice_c": case.start_c, "bob_c": case.start_c},
    }

    async def main(loop: SimulatedLoop) -> Diagnosis:
        async with pair(loop, scenario(seed, **sections), powered=False) as p:
            return Diagnosis(case, *await _reason(p))

    found: Diagnosis = run_simulated(main)
    return found


async def _reason(p: Pair) -> tuple[str, bool]:
    for side, graph in ((p.alice, alice_graph()), (p.bob, bob_graph())):
        try:
            await side.power_up(p.clock)
            await bring_up(graph, side.context)
        except CalibrationRefused as e:
            return str(e), side.context.store.active(e.procedure) is not None
        except (LoopFault, LightRefused, FitRefused) as e:
            return str(e), False
    return "", True
