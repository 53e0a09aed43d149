"""Cold calibrations of drawn pairs, each record compared with the emulator's truth at the moment it was stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

from benchmarks.rig import Pair, Side, pair, scenario
from benchmarks.truth import truth_of
from calibration.context import CalibrationRefused, LightRefused
from calibration.fit import FitRefused
from calibration.graph import Graph, bring_up
from calibration.names import HEATERS
from calibration.procedures import alice_graph, bob_graph
from calibration.record import Record
from calibration.store import Change, Kind
from sim.loop import SimulatedLoop, run_simulated

READING_NOISE = 0.005
WORKERS = 2
CROSSTALK_FROM = 0.01
# Values of which only the sum means something: a dead time and a lag that no reading tells apart.
SUMS = {("tec_plant", "delay_s"): ("dead_s", "lag_s")}


@dataclass(frozen=True)
class Row:
    """One parameter of one record of one pair. sigma: as the record states it, 0 for a value without uncertainty;
    scale: what turns a difference into the unit of its class of parameters."""

    seed: int
    side: str
    record: str
    name: str
    value: float
    truth: float
    sigma: float
    scale: float

    @property
    def key(self) -> str:
        return f"{self.side}.{self.record}.{self.name}"

    @property
    def nees(self) -> float:
        return ((self.value - self.truth) / self.sigma) ** 2

    @property
    def error(self) -> float:
        """In the unit of its class."""
        return (self.value - self.truth) * self.scale


@dataclass(frozen=True)
class Cold:
    """One pair from cold. seconds: simulated, by side, of what keys rest on; warm_s: the same again with valid records
    after all outputs were safe, `redone` of them made anew; deferred_s: of the rest; points: most of a sweep; missing:
    names with an uncertainty but no truth; failed: side and reason of a walk that ended early."""

    seed: int
    rows: tuple[Row, ...]
    seconds: dict[str, float]
    warm_s: dict[str, float]
    redone: int
    deferred_s: dict[str, float]
    by_record: dict[str, float]
    points: int
    missing: tuple[str, ...]
    failed: tuple[str, ...]


@dataclass(frozen=True)
class Calibrated:
    """A class of parameters with the accuracy that the specification asks of it, 95 % of seeds, in `unit`."""

    name: str
    unit: str
    limit: float
    takes: Callable[[Row], bool]


def _null(row: Row) -> bool:
    return row.name in NULLS


NULLS = frozenset({"power_w", "bar_w", "cross_w", "basis_w", "split_w", "combine_w", "null_v", "peak_v"})
CLASSES = (
    Calibrated("P_pi", "%", 0.3, lambda r: r.name.endswith("p_pi_w")),
    Calibrated("null phase", "degrees", 0.6, _null),
    Calibrated("V_pi", "%", 0.5, lambda r: r.name == "v_pi_v"),
    Calibrated("R_0", "%", 0.3, lambda r: r.name.endswith("_r0_ohm")),
    Calibrated("crosstalk", "% of pi", 0.3, lambda r: r.name.startswith("theta_") and abs(r.truth) > CROSSTALK_FROM),
    Calibrated("mean photons", "%", 1.0, lambda r: r.name in ("mu_signal", "mu_decoy")),
    Calibrated("decoy ratio", "%", 0.5, lambda r: r.name == "decoy_ratio"),
)


def scale_of(world: Any, side: str, record: Record, name: str, truth: float) -> float:
    """From a difference to per cent of the truth, for nulls to degrees, for crosstalk to per cent."""
    module = getattr(world, side).individual
    if name.startswith("theta_"):
        return 100.0
    if name in ("null_v", "peak_v"):
        which = {"carver_bias": module.carver, "decoy": module.decoy} if side == "alice" else {}
        return 180.0 / float(which.get(record.name, module.state).v_pi)
    if name in NULLS:
        return 180.0 / 0.040
    return 100.0 / abs(truth) if truth else 0.0


class Comparison:
    """Listens to a store; every new record is laid beside the truth of that moment."""

    def __init__(self, p: Pair, side: Side, seed: int) -> None:
        self.rows: list[Row] = []
        self.missing: set[str] = set()
        self.points = 0
        self._pair, self._side, self._seed = p, side, seed
        side.context.store.subscribe(self._heard)

    def _heard(self, change: Change) -> None:
        if change.kind is not Kind.RECORD or change.record is None:
            return
        record, side = change.record, self._side.name
        raw = self._side.context.raw.get(record.raw_sha256) or {}
        self.points = max([self.points, *(len(raw[n]) for n in ("power_w", "volts", "bias_a") if n in raw)])
        found = truth_of(self._pair.world, side, record, self._believe)
        stated = {n: (v, record.sigma(n)) for n, v in record.value.items()}
        for (name, total), parts in SUMS.items():
            if name == record.name and all(p in record.covariance_names for p in parts):
                stated[total] = _sum(record, parts)
                for p in parts:
                    del stated[p]
        for name, (value, sigma) in stated.items():
            if name in found:
                scale = scale_of(self._pair.world, side, record, name, found[name])
                self.rows.append(Row(self._seed, side, record.name, name, value, found[name], sigma, scale))
            elif sigma > 0.0:
                self.missing.add(f"{side}.{record.name}.{name}")

    def _believe(self, channel: str, watts: float) -> float:
        """The drive sets currents: what it must be told for true watts."""
        store, module = self._side.context.store, getattr(self._pair.world, self._side.name)
        if store.active("heater_iv") is None or watts <= 0.0:
            return watts
        heaters, i = module.heaters, _channel(self._side.name, channel)
        amperes = math.sqrt(watts / (heaters.cold_ohm(i) * (1.0 + heaters.rho(i) * watts)))
        return self._side.context.drive.resistance(channel).power(amperes)


def _sum(record: Record, parts: Sequence[str]) -> tuple[float, float]:
    """Sum of some values and its standard uncertainty."""
    at = [record.covariance_names.index(p) for p in parts]
    variance = sum(record.covariance[i][j] for i in at for j in at)
    return math.fsum(record.value[p] for p in parts), math.sqrt(max(0.0, variance))


def _channel(side: str, name: str) -> int:
    return len(HEATERS[side]) if name == "ballast" else HEATERS[side].index(name)


def cold(seed: int, loss_db: float = 10.0, reading_noise: float = READING_NOISE, deferred: bool = True) -> Cold:
    """Calibrate a drawn pair from nothing, in simulated time after its TEC is stable."""

    async def main(loop: SimulatedLoop) -> Cold:
        async with pair(loop, scenario(seed, loss_db, modules={"reading_noise": reading_noise})) as p:
            return await _walk(loop, p, seed, deferred)

    found: Cold = run_simulated(main)
    return found


async def _walk(loop: SimulatedLoop, p: Pair, seed: int, deferred: bool) -> Cold:
    heard = {s.name: Comparison(p, s, seed) for s in (p.alice, p.bob)}
    seconds: dict[str, float] = {}
    late: dict[str, float] = {}
    failed: list[str] = []
    stamps: dict[str, float] = {}
    for side in (p.alice, p.bob):
        side.context.store.subscribe(_stopwatch(loop, side.name, stamps))
    for side, graph in ((p.alice, alice_graph()), (p.bob, bob_graph())):
        began = loop.time()
        stamps[side.name] = began
        reason = await _bring_up(graph, side, None)
        seconds[side.name] = loop.time() - began
        failed += [f"{side.name}: {reason}"] if reason else []
    warm, redone = await _warm(loop, p) if not failed else ({}, 0)
    if deferred and not failed:
        failed += await _later(loop, p, late, stamps)
    rows = [r for c in heard.values() for r in c.rows]
    missing = sorted(m for c in heard.values() for m in c.missing)
    spent = {k[5:]: v for k, v in stamps.items() if k.startswith("cost ")}
    points = max(c.points for c in heard.values())
    return Cold(seed, tuple(rows), seconds, warm, redone, late, spent, points, tuple(missing), tuple(failed))


async def _later(loop: SimulatedLoop, p: Pair, late: dict[str, float], stamps: dict[str, float]) -> list[str]:
    """What is deferred, in the order of the graphs, but last of all what moves the temperatures of both modules."""
    failed = []
    for last in (False, True):
        for side, graph in ((p.alice, alice_graph()), (p.bob, bob_graph())):
            stamps[side.name] = began = loop.time()
            for name in [q.name for q in graph if q.deferred and (q.name == "tec_plant") is last]:
                if reason := await _bring_up(graph, side, [name]):
                    failed.append(f"{side.name}: {reason}")
            # As after any upkeep, all set points come back: some of these leave the laser at another power.
            if reason := await _bring_up(graph, side, None):
                failed.append(f"{side.name}: {reason}")
            late[side.name] = late.get(side.name, 0.0) + loop.time() - began
    return failed


async def _warm(loop: SimulatedLoop, p: Pair) -> tuple[dict[str, float], int]:
    """Outputs safe, then up again: (seconds by side, records that were made anew)."""
    for side in (p.alice, p.bob):
        for role in ("heaters", "biases", "laser", "detectors"):
            if role in side.roles:
                await side.roles[role].make_safe()
    seconds: dict[str, float] = {}
    redone = 0
    for side, graph in ((p.alice, alice_graph()), (p.bob, bob_graph())):
        before = {n: len(side.context.store.history(n)) for n in side.context.store.names()}
        began = loop.time()
        await bring_up(graph, side.context)
        seconds[side.name] = loop.time() - began
        redone += sum(len(side.context.store.history(n)) - k for n, k in before.items())
    return seconds, redone


def _stopwatch(loop: SimulatedLoop, side: str, stamps: dict[str, float]) -> Callable[[Change], None]:
    def heard(change: Change) -> None:
        if change.kind is Kind.RECORD:
            stamps[f"cost {side}.{change.name}"] = loop.time() - stamps[side]
            stamps[side] = loop.time()

    return heard


async def _bring_up(graph: Graph, side: Side, targets: list[str] | None) -> str:
    """Reason of a refusal; empty when all went well."""
    try:
        await bring_up(graph, side.context, targets)
    except (CalibrationRefused, LightRefused, FitRefused) as e:
        return str(e)
    return ""


def many(
    seeds: Iterable[int], workers: int = WORKERS, told: Callable[[int], None] = lambda _done: None, **options: Any
) -> list[Cold]:
    """`cold` for every seed, in processes of their own; told: how many are done; options as `cold`."""
    wanted = list(seeds)
    found: dict[int, Cold] = {}
    if workers <= 1:
        for seed in wanted:
            found[seed] = cold(seed, **options)
            told(len(found))
        return list(found.values())
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for job in as_completed([pool.submit(cold, s, **options) for s in wanted]):
            found[job.result().seed] = job.result()
            told(len(found))
    return [found[s] for s in wanted]


@dataclass(frozen=True)
class Honesty:
    """One parameter over all pairs. nees: mean; stated, seen: rms of the stated and of the true error."""

    key: str
    count: int
    nees: float
    worst: float
    stated: float
    seen: float
    bias: float


def honesty(runs: Sequence[Cold]) -> list[Honesty]:
    """By parameter, in the order in which they were stored."""
    groups: dict[str, list[Row]] = {}
    for run in runs:
        for row in run.rows:
            if row.sigma > 0.0:
                groups.setdefault(row.key, []).append(row)
    return [_honesty(key, rows) for key, rows in groups.items()]


def _honesty(key: str, rows: Sequence[Row]) -> Honesty:
    nees = np.array([r.nees for r in rows])
    error = np.array([r.value - r.truth for r in rows])
    stated = math.sqrt(float(np.mean([r.sigma**2 for r in rows])))
    seen = math.sqrt(float(np.mean(error**2)))
    return Honesty(key, len(rows), float(nees.mean()), float(np.sqrt(nees.max())), stated, seen, float(error.mean()))


def overall(runs: Sequence[Cold]) -> float:
    """Mean normalised error squared over all parameters and pairs."""
    return float(np.mean([r.nees for run in runs for r in run.rows if r.sigma > 0.0]))


def accuracy(runs: Sequence[Cold], what: Calibrated) -> tuple[int, float, float]:
    """(number of values, rms error, the error that 95 % of them do not exceed), in the class's unit."""
    errors = np.array([abs(r.error) for run in runs for r in run.rows if what.takes(r)])
    if not len(errors):
        return 0, math.nan, math.nan
    return len(errors), float(np.sqrt(np.mean(errors**2))), float(np.quantile(errors, 0.95))


def report(runs: Sequence[Cold]) -> str:
    """Table for people."""
    head = f"{'parameter':<44} {'n':>3} {'NEES':>9} {'worst':>7} {'stated':>10} {'seen':>10} {'mean':>10}"
    lines = [f"overall NEES {overall(runs):.3f} over {len(runs)} pairs (0.8 to 1.25)", "", head]
    for h in honesty(runs):
        mark = " " if 0.5 <= h.nees <= 2.0 else "*"
        lines.append(
            f"{h.key:<44} {h.count:>3} {h.nees:>8.2f}{mark} {h.worst:>7.1f} {h.stated:>10.3g} {h.seen:>10.3g} "
            f"{h.bias:>10.3g}"
        )
    lines += ["", f"{'accuracy':<16} {'n':>4} {'rms':>8} {'95 %':>8} {'limit':>8} unit"]
    for c in CLASSES:
        n, rms, most = accuracy(runs, c)
        lines.append(f"{c.name:<16} {n:>4} {rms:>8.3f} {most:>8.3f} {c.limit:>8.3g} {c.unit}")
    for side in ("alice", "bob"):
        took = [r.seconds[side] for r in runs if side in r.seconds]
        rest = [r.deferred_s[side] for r in runs if side in r.deferred_s]
        warm = [r.warm_s[side] for r in runs if side in r.warm_s]
        lines.append(
            f"{side}: {max(took):.1f} s at most"
            + (f", warm {max(warm):.1f} s" if warm else "")
            + (f", deferred {max(rest):.1f} s" if rest else "")
        )
    spent: dict[str, list[float]] = {}
    for run in runs:
        for name, s in run.by_record.items():
            spent.setdefault(name, []).append(s)
    lines.append("seconds by record: " + ", ".join(f"{n} {np.mean(v):.2f}" for n, v in spent.items()))
    lines.append(f"redone in warm boots: {sum(r.redone for r in runs)}")
    lines.append(f"most points of a sweep: {max(r.points for r in runs)}")
    missing = sorted({m for r in runs for m in r.missing})
    lines.append("stated without a truth: " + (", ".join(missing) or "none"))
    lines += [f"seed {r.seed} failed: {f}" for r in runs for f in r.failed]
    return "\n".join(lines) + "\n"
