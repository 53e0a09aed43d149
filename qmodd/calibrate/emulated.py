"""Both modules of an emulated pair calibrated in one process on a clock that jumps: the whole graph in seconds.

The same applications, procedures, drivers and chips as in the demo; only the transports are in memory. The receiver
gets its light from the transmitter beside it instead of over the service channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calibration.context import CalibrationContext, Progress
from calibration.procedures import alice_graph, bob_graph
from qmodd.app.alice import AliceOperator
from qmodd.calibrate.session import PeerLight, failure, opened, warm
from qmodd.calibrate.walk import Outcome, Walk
from qmodd.soak import STROBE, Run
from sim.loop import SimulatedLoop
from sim.scenario import Scenario

# No strobe: calibrations count every click, as in service.
SETTINGS: dict[str, Any] = {**STROBE, "gate_open_ps": 0, "gate_period_ps": 0}


@dataclass
class Told:
    """Who wants to know what: `show` of progress, `ended` of each calibration, `say` of everything else, by side."""

    show: Callable[[str, Progress], None] = lambda _side, _progress: None
    ended: Callable[[str, Outcome], None] = lambda _side, _outcome: None
    say: Callable[[str, str], None] = lambda _side, _text: None


@dataclass
class EmulatedPair:
    """What came of it: outcomes by side, the run with both stores, simulated seconds from power-on to the end; what
    ended it early, and the exit status for that."""

    run: Run
    walks: dict[str, Walk] = field(default_factory=dict)
    seconds: float = 0.0
    failed: str = ""
    status: int = 0


def sides_of(targets: Sequence[str]) -> dict[str, list[str]]:
    """Which side's graph has a target; a name of both is meant on both. Raises LookupError for an unknown one."""
    graphs = {"alice": alice_graph(), "bob": bob_graph()}
    out: dict[str, list[str]] = {side: [] for side in graphs}
    for target in targets:
        having = [side for side, graph in graphs.items() if target in graph.names]
        if not having:
            names = sorted({n for graph in graphs.values() for n in graph.names})
            raise LookupError(f"no calibration {target!r}; there are {', '.join(names)}")
        for side in having:
            out[side].append(target)
    return out


def calibrate_pair(
    directory: Path,
    scenario: Scenario,
    told: Told,
    targets: Sequence[str] = (),
    force: Collection[str] = (),
) -> EmulatedPair:
    """Both modules from power-on. Without targets everything; with them, what they rest on too, and on the receiver's
    side the whole transmitter, for it gives the light. The caller closes `run`.

    Raises LookupError for an unknown target.
    """
    wanted = sides_of(targets)
    loop = SimulatedLoop()

    async def main() -> EmulatedPair:
        pair = EmulatedPair(Run(loop, directory, scenario, scenario.seed, dict(SETTINGS)))
        try:
            await calibrate_both(pair, told, wanted if targets else None, force)
        except Exception as e:
            pair.failed, pair.status = failure(e)
        pair.seconds = loop.time()
        return pair

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main())


async def calibrate_both(
    pair: EmulatedPair, told: Told, wanted: dict[str, list[str]] | None, force: Collection[str]
) -> None:
    """Both are switched on together; the transmitter calibrates first, its light is the receiver's."""
    if wanted is not None and wanted["bob"]:
        wanted = {**wanted, "alice": list(alice_graph().names)}
    sides = [side for side in ("alice", "bob") if wanted is None or wanted[side]]
    cores = {side: pair.run.sites[side].core for side in sides}
    light = PeerLight(_transmitter(pair))
    contexts: dict[str, CalibrationContext] = {}
    async with AsyncExitStack() as stack:
        ticking = asyncio.ensure_future(pair.run.tick())
        stack.callback(ticking.cancel)
        for side, core in cores.items():
            session = opened(core, "qmodd calibrate --emulated", light, _saying(told, side))
            contexts[side] = await stack.enter_async_context(session)
        await asyncio.gather(*(warm(core, _saying(told, side)) for side, core in cores.items()))
        for side, core in cores.items():
            walk = pair.walks[side] = Walk(side, core.operator.graph(), contexts[side], told.show, told.ended)
            await walk.run(wanted and wanted[side], [n for n in force if n in walk.graph.names])
            core.operator.in_service = not any(o.state in ("refused", "waiting") for o in walk.outcomes.values())


def _transmitter(pair: EmulatedPair) -> AliceOperator:
    operator = pair.run.sites["alice"].core.operator
    assert isinstance(operator, AliceOperator)
    return operator


def _saying(told: Told, side: str) -> Callable[[str], None]:
    return lambda text: told.say(side, text)
