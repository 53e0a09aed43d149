"""Hot swaps of either module during keying: back to keys without a person, and no key of two modules.

Simulated time, whole pair: both daemons go on, world and controllers too. A module is pulled in the middle of a block
and ten seconds later the same or another individual is put in its place.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Mismatch, Progress, Result, silent
from qmodd.lifecycle import Activity
from qmodd.soak import STROBE, Run
from sim.loop import SimulatedLoop
from sim.scenario import Scenario
from sim.swap import Bay

OUT_S = 10.0
INTO_BLOCK = 0.2
# Another individual gets its whole calibration; the same one has its records checked.
KEYING_LIMIT_S = {"same": 120.0, "other": 300.0}
SETTINGS = {**STROBE, "n_z": 393_216}
# Which module, and the seed of the individual that comes; None: the one that was pulled. Individuals come back, too.
SWAPS: tuple[tuple[str, int | None], ...] = (
    ("alice", None),
    ("bob", None),
    ("alice", 7),
    ("bob", 5),
    ("alice", 1),
    ("bob", None),
    ("alice", 8),
    ("bob", 1),
    ("alice", None),
    ("bob", 9),
)


@dataclass(frozen=True)
class Swap:
    """One hot swap: seconds from the insertion to keying on both sides, and to the first key of the pair of modules."""

    side: str
    kind: str
    old: str
    new: str
    keying_s: float
    key_s: float


@dataclass
class Outcome:
    """All swaps of one run, and what stands against them."""

    swaps: list[Swap]
    faults: list[str]
    blocks: int = 0
    keys: int = 0


def bay(run: Run, side: str) -> Bay:
    found = run.rigs[side].bay
    assert found is not None
    return found


def keying(run: Run) -> bool:
    return all(s.core.life.activity is Activity.KEYING for s in run.sites.values())


def modules_in(run: Run) -> str:
    """Serials of the modules that are in, by the world."""
    return f"{run.world.alice.serial} {run.world.bob.serial}"


def kept(run: Run, side: str) -> list[dict[str, Any]]:
    """Events of committed blocks of one side."""
    return [e for e in run.sites[side].core.events.entries if e["event"] == "block.kept"]


async def until(run: Run, done: Callable[[], bool], within_s: float, what: str) -> float:
    """Seconds until it is so. Raises Mismatch with the states of both modules."""
    begin = run.loop.time()
    while not done():
        if run.loop.time() - begin > within_s:
            why = {n: f"{s.core.life.activity}: {s.core.life.why('activity')}" for n, s in run.sites.items()}
            raise Mismatch(f"not within {within_s:g} s: {what}; {why}")
        await asyncio.sleep(0.5)
    return run.loop.time() - begin


async def swap_one(run: Run, side: str, seed: int | None) -> Swap:
    """Pull in the middle of a block, put in, wait for a key of the new pair."""
    place, engines = bay(run, side), [s.core.engine for s in run.sites.values()]

    def within_block() -> bool:
        return keying(run) and all(e.status.block_progress > INTO_BLOCK for e in engines)

    await until(run, within_block, 1000.0, "a block is under way")
    old = place.serial
    place.pull()
    await asyncio.sleep(OUT_S)
    place.insert(seed)
    begin = run.loop.time()
    before = {s: len(kept(run, s)) for s in run.sites}
    await until(run, lambda: keying(run), 1000.0, f"keys after a swap of {side}")
    keying_s = run.loop.time() - begin
    await until(run, lambda: all(len(kept(run, s)) > before[s] for s in run.sites), 1000.0, "a key after a swap")
    kind = "same" if place.serial == old else "other"
    return Swap(side, kind, old, place.serial, keying_s, run.loop.time() - begin)


async def swap_all(run: Run, swaps: Sequence[tuple[str, int | None]], progress: Progress, out: Outcome) -> None:
    """Beside the running pair. What was in at each committed block is compared with what the block's record says."""
    seen: list[tuple[str, str]] = []

    def heard(entry: dict[str, Any]) -> None:
        if entry["event"] == "block.kept":
            seen.append((str(entry["modules"]), modules_in(run)))

    for site in run.sites.values():
        site.core.events.listeners.append(heard)
    for number, (side, seed) in enumerate(swaps):
        progress(number / len(swaps), f"swap {number + 1} of {len(swaps)}: {side}")
        out.swaps.append(await swap_one(run, side, seed))
    out.faults += [f"a block of {said} was committed with {world} in" for said, world in seen if said != world]


def judge(run: Run, out: Outcome) -> None:
    """After the run: keys of both sides are equal, no block names two modules of one side, nobody was asked."""
    blocks = {s: {str(e["uuid"]): str(e["modules"]) for e in kept(run, s)} for s in run.sites}
    out.blocks = len(blocks["bob"])
    if blocks["alice"] != blocks["bob"]:
        out.faults.append("the sides do not name the same modules for the same blocks")
    digests = {s: site.receiver.digests() for s, site in run.sites.items()}
    common = digests["alice"].keys() & digests["bob"].keys()
    out.keys = len(common)
    if wrong := sum(digests["alice"][i] != digests["bob"][i] for i in common):
        out.faults.append(f"{wrong} keys differ between the sites")
    for name, site in run.sites.items():
        if (why := site.core.store.audit()) is not None:
            out.faults.append(f"{name}'s key store: {why}")
        if asked := sum(e["event"] == "request.accepted" for e in site.core.events.entries):
            out.faults.append(f"{name}: {asked} commands by a person")


def hot_swaps(
    directory: Path, swaps: Sequence[tuple[str, int | None]], seed: int = 1, progress: Progress = silent
) -> tuple[Run, Outcome]:
    """The caller closes the run. Raises Mismatch."""
    loop = SimulatedLoop()
    out = Outcome([], [])

    async def main() -> Run:
        run = Run(loop, directory, Scenario(seed=seed), seed, dict(SETTINGS))
        work = asyncio.ensure_future(swap_all(run, swaps, progress, out))
        try:
            await run.for_seconds(20_000.0, until=work.done)
            await work
        except BaseException:
            run.close()
            raise
        finally:
            work.cancel()
            await asyncio.wait({work})
        return run

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        run = runner.run(main())
    judge(run, out)
    return run, out


def run(progress: Progress = silent) -> Iterable[Result]:
    """Seconds to keying by kind, and how many blocks or keys were wrong. Raises Mismatch."""
    with tempfile.TemporaryDirectory(prefix="qmodd-swap-") as directory:
        pair, out = hot_swaps(Path(directory), SWAPS, progress=progress)
        pair.close()
    for kind, limit_s in KEYING_LIMIT_S.items():
        took = [s for s in out.swaps if s.kind == kind]
        detail = {
            f"{n + 1}_{s.side}_{s.new}_s": round(s.keying_s, 1) for n, s in enumerate(out.swaps) if s.kind == kind
        }
        worst = max(s.keying_s for s in took)
        yield Result(
            f"swap, {kind} module",
            worst,
            "s to keys",
            None,
            "",
            less_is_better=True,
            limit=limit_s,
            detail=detail,
            note=f"{len(took)} swaps",
        )
    note = "; ".join(out.faults) or f"{len(out.swaps)} swaps, {out.blocks} blocks, {out.keys} equal keys"
    yield Result(
        "swap, mixed keys", float(len(out.faults)), "faults", None, "", less_is_better=True, limit=0.0, note=note
    )
