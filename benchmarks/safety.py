"""`qmodd bench safety`: random faults while a pair keys; whether outputs go safe in time, latches last, one alarm says
why, and keys come back.

    python -m benchmarks.safety [--faults 500] [--seed 1]

Faults are drawn from the world's, the electronics', the buses', the interlocks' kinds, and of the daemon itself: a loop
that crashes or hangs, SIGTERM, SIGKILL, SIGKILL in the middle of writing a latch.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Progress, Result, silent
from benchmarks.safety_faults import Drawn, draw
from benchmarks.safety_latches import kill
from benchmarks.safety_report import SAFE_S, Told, of_kills, results, table
from benchmarks.safety_rig import SITES, Killed, MortalRun, dying_in_a_write
from qmodd.app.safekeeping import StillViolated
from qmodd.safety.latches import Latch
from qmodd.soak import STROBE
from sim.faults import Fault
from sim.loop import SimulatedLoop
from sim.scenario import Scenario

COUNT, PROCESSES, KILLS = 500, 2, 300
# How often the world is looked at, and for how long; what keys may take to come back; until a fault is noticed; what
# settles later.
LOOK_S, LOOKED_FOR_S, BACK_S, NOTICE_S, SETTLE_S = 0.01, 1.5, 600.0, 3.0, 15.0
LATCH = "over-current"


class Trial:
    """One fault and what followed, on a pair that keys."""

    def __init__(self, run: MortalRun, drawn: Drawn, rng: np.random.Generator) -> None:
        self.run, self.drawn, self.rng = run, drawn, rng
        self.begin_s = run.loop.time()
        self.dark_s: dict[str, list[float]] = {name: [] for name in SITES}
        self.death_s: float | None = None
        self.set: set[tuple[str, str]] = set()
        self.told = Told(str(drawn), drawn.group, False)

    async def go(self) -> Told:
        look = asyncio.ensure_future(self._look())
        try:
            await self._strike()
            await asyncio.sleep(NOTICE_S)
            await self._restart_while_latched()
            await self._back()
            # What was on its way meanwhile: alarms that wait for their root, a loop that gives up late.
            await asyncio.sleep(SETTLE_S)
            await self._back()
        finally:
            look.cancel()
        self._judge()
        return self.told

    # what befalls

    async def _strike(self) -> None:
        drawn, run = self.drawn, self.run
        if drawn.group == "daemon":
            await self._strike_daemon()
        else:
            fault = Fault(run.loop.time(), drawn.kind, drawn.target, drawn.duration_s, drawn.value)
            run.world.faults.add(fault)
            run.world.before_change()
            run.world._apply_faults(run.loop.time())
        await asyncio.sleep(max(0.0, self.begin_s + drawn.duration_s + 0.3 - run.loop.time()))
        run.detected.set()  # what could not be reached is to be safe now

    async def _strike_daemon(self) -> None:
        run, site = self.run, self.drawn.site
        match self.drawn.kind:
            case "loop crash" | "loop hang":
                await self._break_a_loop()
            case "hot":
                plant = (run.world.alice if site == "alice" else run.world.bob).plant
                for _ in range(8):
                    plant.state[3] = max(plant.state[3], 76.0)
                    await asyncio.sleep(0.5)
            case "SIGTERM":
                await run.stop(site)
                await self._reborn()
            case "SIGKILL":
                await self._killed()
            case _:
                await self._killed_in_a_write()

    async def _break_a_loop(self) -> None:
        """Ends when it is noticed: a slow loop is given its time, and its restart as much."""
        scheduler = self.run.sites[self.drawn.site].core.wiring.scheduler
        assert scheduler is not None
        loop = scheduler._loops[str(self.rng.choice(sorted(scheduler._loops)))]
        self.told.fault = f"{self.drawn.kind}: {self.drawn.site}'s {loop.name}"

        async def crash(_now_s: float) -> None:
            raise RuntimeError("a bug")

        async def hang(_now_s: float) -> None:
            await asyncio.Event().wait()

        object.__setattr__(loop, "step", crash if self.drawn.kind == "loop crash" else hang)
        end_s = self.run.loop.time() + 2.0 * (loop.period_s + loop.deadline_s) + 1.0
        while self.run.loop.time() < end_s and not self.run.since(self.begin_s, "session.failed", site=self.drawn.site):
            await asyncio.sleep(0.5)

    async def _killed(self) -> None:
        await asyncio.sleep(float(self.rng.uniform(0.0, 1.0)))
        self.death_s = self.run.loop.time()
        await self.run.kill(self.drawn.site)
        await self._reborn()

    async def _killed_in_a_write(self) -> None:
        """Another latch is set already; the process dies while a second one is on its way to the disk."""
        site = self.drawn.site
        keep = self.run.sites[site].core.operator.safekeeping
        keep.latch("heater-budget", "heaters take more than they may (drawn)")
        self.set.add((site, "heater-budget"))
        try:
            with dying_in_a_write(int(self.rng.integers(0, 8)), float(self.rng.uniform())):
                keep.store.set(Latch(LATCH, "heater rail at 400 mA; 180 mA is the limit (drawn)", "now"))
            self.set.add((site, LATCH))
        except Killed:
            self.told.fault += ", torn"
        self.death_s = self.run.loop.time()
        await self.run.kill(site)
        await self._reborn()

    async def _reborn(self) -> None:
        await asyncio.sleep(max(0.0, self.drawn.duration_s - (self.run.loop.time() - (self.death_s or self.begin_s))))
        self.run.rebirth(self.drawn.site)
        self._count_lost()

    def _count_lost(self) -> None:
        for site, name in self.set:
            if name not in self.run.sites[site].core.operator.safekeeping.store:
                self.told.latches_lost += 1
                self.told.failures.append(f"latch {name} of {site} was lost")

    # what has to follow

    async def _restart_while_latched(self) -> None:
        """Half of what is latched is killed once more, somewhere in its first seconds of being dark."""
        for site in SITES:
            store = self.run.sites[site].core.operator.safekeeping.store
            self.set |= {(site, held.name) for held in store.all()}
            if store.all() and self.rng.random() < 0.5:
                await asyncio.sleep(float(self.rng.uniform(0.0, 5.0)))
                await self.run.kill(site)
                await asyncio.sleep(0.5)
                self.run.rebirth(site)
                await asyncio.sleep(float(self.rng.uniform(0.5, 5.0)))
                if not self._outputs(site):
                    self.told.failures.append(f"{site} is not dark although it is latched")
        self.told.latches_set = len(self.set)
        self._count_lost()

    async def _back(self) -> None:
        while not self.run.keying() or any(self._held(site) for site in SITES):
            if self.run.loop.time() - self.begin_s > BACK_S:
                self.told.back_s = math.nan
                why = "; ".join(
                    f"{s.name} {s.core.life.activity}: {s.core.life.why('activity')}" for s in self._sites()
                )
                self.told.failures.append(f"no keys after {BACK_S:g} s: {why[:300]}")
                return
            for site in self._sites():
                await self._clear(site.core.operator)
            self.told.back_s = math.inf
            await asyncio.sleep(1.0)
        if not math.isfinite(self.told.back_s):
            self.told.back_s = self.run.loop.time() - self.begin_s

    def _sites(self) -> Iterator[Any]:
        yield from self.run.sites.values()

    def _held(self, site: str) -> bool:
        return bool(self.run.sites[site].core.operator.latches())

    async def _clear(self, operator: Any) -> None:
        for name in list(operator.latches()):
            self.set.add((operator.wiring.config.module.role, name))
            try:
                await operator.clear_latch(name, "bench")
            except (StillViolated, LookupError):
                continue

    # what is looked at

    def _outputs(self, site: str) -> bool:
        """Dark, by the world."""
        rig = self.run.rigs[site]
        rig.tick()
        dac = rig.part("ltc2672")
        hot = any(dac.current(c) for c in range(5)) and rig.port.heater_rail()[0] > 0.0
        lit = self.run.world.alice.laser()[0] if site == "alice" else bool(self.run.world.bob.bank.bias.any())
        return not (hot or lit or rig.port.heater_rail()[0] > 0.0)

    def _rails(self, site: str) -> bool:
        """The same without what needs a daemon: the bias of the detectors."""
        rig = self.run.rigs[site]
        rig.tick()
        return not (rig.port.heater_rail()[0] > 0.0 or (site == "alice" and self.run.world.alice.laser()[0]))

    async def _look(self) -> None:
        """Closely, from every detection on; a look costs as much as a period of a loop."""
        while True:
            await self.run.detected.wait()
            self.run.detected.clear()
            until_s = self.run.loop.time() + LOOKED_FOR_S
            while self.run.loop.time() < until_s:
                for site in SITES:
                    dead = self.death_s is not None and site == self.drawn.site
                    if (self._rails if dead else self._outputs)(site):
                        self.dark_s[site].append(self.run.loop.time())
                await asyncio.sleep(LOOK_S)

    def _judge(self) -> None:
        run, told, begin = self.run, self.told, self.begin_s
        ends = run.since(begin, "session.failed", "core.stopped")
        offs = [e for e in run.since(begin, "state.operational") if e[2]["value"] == "disabled"]
        told.stopped = bool(ends or offs or self.death_s or run.since(begin, "latch.set"))
        told.alarms = [f"{site}: {e['alarm']}" for _, site, e in run.since(begin, "alarm.raised")]
        moments: dict[str, float] = {}
        for at, site, entry in [*run.since(begin, "latch.set"), *offs]:
            if entry.get("why") != "starting":
                moments[site] = min(at, moments.get(site, math.inf))
        if self.death_s is not None:
            moments[self.drawn.site] = self.death_s
        if "snspd" in self.drawn.target:
            # Nothing but the controller itself takes the bias away: from when it answers again.
            moments = {site: max(at, begin + self.drawn.duration_s) for site, at in moments.items()}
        for site, at in moments.items():
            dark = next((t for t in self.dark_s[site] if t >= at - LOOK_S), math.inf)
            told.safe_s = max(0.0 if math.isnan(told.safe_s) else told.safe_s, dark - at)
        if told.safe_s > SAFE_S:
            told.failures.append(f"outputs safe {told.safe_s:.2f} s after detection; {SAFE_S:g} s is the limit")
        self._judge_alarms(bool(ends))

    def _judge_alarms(self, failed: bool) -> None:
        """A fault that ends a session is one alarm of the pair. A daemon that is told to stop or dies tells nothing,
        and the far one waits before it does."""
        roots = len(self.told.alarms)
        quiet = self.drawn.kind in ("SIGTERM", "SIGKILL")
        if roots > 1 or (failed and roots == 0 and not quiet):
            self.told.failures.append(f"{roots} alarms: {', '.join(self.told.alarms) or 'none'}")


async def trials(
    run: MortalRun, todo: list[Drawn], rng: np.random.Generator, out: list[Told], record: Path | None
) -> None:
    """One after the other until the pair does not come back; what was done is taken off `todo`."""
    begin = run.loop.time()
    while not run.keying():
        if run.loop.time() - begin > BACK_S:
            raise RuntimeError("the pair does not come up at all")
        await asyncio.sleep(1.0)
    await asyncio.sleep(5.0)
    while todo:
        out.append(await Trial(run, todo.pop(0), rng).go())
        if record is not None:
            with record.open("a") as file:
                file.write(json.dumps(asdict(out[-1])) + "\n")
        if out[-1].failures:
            sys.stderr.write(f"at {run.loop.time():.0f} s: {out[-1].fault}: {'; '.join(out[-1].failures)}\n")
        if math.isnan(out[-1].back_s):
            return
        await asyncio.sleep(float(rng.uniform(1.0, 5.0)))


def pair(seed: int, todo: list[Drawn], rng: np.random.Generator, out: list[Told], record: Path | None = None) -> None:
    loop = SimulatedLoop()

    async def main(directory: Path) -> None:
        scenario = Scenario().model_copy(update={"seed": seed})
        run = MortalRun(loop, directory, scenario, seed, {**STROBE, "watchdog_period_s": 0.1})
        life = asyncio.ensure_future(run.live())
        try:
            await trials(run, todo, rng, out, record)
        finally:
            life.cancel()
            await asyncio.wait({life})
            run.close()

    with (
        tempfile.TemporaryDirectory(prefix="qmodd-safety-") as directory,
        asyncio.Runner(loop_factory=lambda: loop) as runner,
    ):
        runner.run(main(Path(directory)))


def work(arguments: tuple[int, int, Path | None]) -> list[dict[str, Any]]:
    """`count` faults with one seed; a pair that does not come back is replaced by another."""
    seed, count, record = arguments
    rng = np.random.default_rng(seed)
    todo, out = [draw(rng) for _ in range(count)], list[Told]()
    while todo:
        pair(seed, todo, rng, out, record)
    return [asdict(told) for told in out]


def run(
    progress: Progress = silent,
    count: int = COUNT,
    seed: int = 1,
    chunk: int = 25,
    processes: int = PROCESSES,
    record: Path | None = None,
) -> Iterable[Result]:
    """The table on stderr, then the results. `record` gets every fault as a line of JSON when it is over."""
    told = list[Told]()
    jobs = [(seed * 10_000 + n, min(chunk, count - chunk * n), record) for n in range(math.ceil(count / chunk))]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for found in pool.map(work, jobs):
            told += [Told(**row) for row in found]
            progress(len(told) / count, f"{sum(bool(t.failures) for t in told)} of {len(told)} not as they should be")
    sys.stderr.write(table(told) + "\n")
    yield from results(told)
    with tempfile.TemporaryDirectory(prefix="qmodd-latches-") as directory:
        yield of_kills(kill(KILLS, seed, Path(directory)))


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--faults", type=int, default=COUNT)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--chunk", type=int, default=25, help="faults of one pair, one after the other")
    p.add_argument("--processes", type=int, default=PROCESSES)
    p.add_argument("--record", type=Path, help="append every fault to this file, a line of JSON each")
    a = p.parse_args()

    def shown(fraction: float, text: str) -> None:
        sys.stderr.write(f"{fraction:5.0%} {text}\n")

    from benchmarks.__main__ import line

    found = list(run(shown, a.faults, a.seed, a.chunk, a.processes, a.record))
    sys.stderr.write("\n".join(line(r) for r in found) + "\n")
    sys.exit(0 if all(r.ok for r in found) else 1)
