"""The self-test against modules with one thing broken, and against sound ones: is every fault seen, is the right part
named, is a sound module left alone, and how long does it take.

`python -m benchmarks.selftest [--only TEXT] [--healthy N] [--processes N] [--table]`; --only runs the cases whose name
has the text and tells every failed finding.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from benchmarks.measure import Progress, Result, silent, wilson
from benchmarks.selftest_trials import Healthy, Trial, fault_trials, healthy_trials, population
from qmodd.selftest.model import Level
from sim.fault_library import CASES, CATEGORIES, FaultCase

HEALTHY_A_SIDE = 100
NAMED_SHARE = 0.95
POWER_ON_S, LIGHT_S, TEC_S = 10.0, 60.0, 180.0
LIGHT = (Level.LIGHT_OFF, Level.LIGHT_ON)
PROCESSES = 2


def run(
    cases: Sequence[FaultCase] = CASES,
    healthy: int = HEALTHY_A_SIDE,
    *,
    processes: int = PROCESSES,
    progress: Progress = silent,
) -> Iterator[Result]:
    """Every case, then `healthy` sound modules of each kind, then the shares, the false failures and the times."""
    modules = population(healthy)
    total = len(cases) + len(modules)

    def told(before: int, what: str) -> Callable[[int, Trial], None]:
        return lambda n, trial: progress((before + n) / total, f"{what} {trial.name}")

    trials = fault_trials(cases, told(0, ""), processes)
    for case, trial in zip(cases, trials, strict=True):
        yield one(case, trial)
    sound = healthy_trials(modules, told(len(cases), "sound"), processes)
    yield from shares(cases, trials)
    yield from sound_ones(modules, sound)
    yield from times([*trials, *sound])
    progress(1.0, "")


def one(case: FaultCase, trial: Trial) -> Result:
    """A line of the table: 1 where the fault was seen; the limit for names is one of the whole table."""
    detail = {"named": float(trial.named), "failed_count": float(len(trial.failed))}
    detail |= {f"{k.replace('-', '_').replace('.', '_')}_s": v for k, v in trial.seconds.items()}
    return Result(case.name, float(trial.detected), "detected", None, "", detail=detail, limit=1.0, note=said(trial))


def said(trial: Trial) -> str:
    """Suspects, and what is wrong with them."""
    if trial.error:
        return f"BUG: {trial.error}"
    if not trial.detected:
        return "NOT DETECTED"
    text = ", ".join(trial.suspects[:3])
    return text if trial.named else f"MISNAMED: {text} (right: {' or '.join(sorted(trial.parts))})"


def shares(cases: Sequence[FaultCase], trials: Sequence[Trial]) -> Iterator[Result]:
    """Of all cases: seen, and named; in detail the shares by category."""
    seen, named = sum(t.detected for t in trials), sum(t.named for t in trials)
    for name, count, of, limit in (("detected", seen, "seen", 1.0), ("named", named, "named", NAMED_SHARE)):
        low, high = wilson(count, len(trials))
        detail = {"cases_count": float(len(trials)), "wilson_low": low, "wilson_high": high}
        detail |= _by_category(cases, trials, of)
        yield Result(name, count / max(1, len(trials)), "of cases", None, "", detail=detail, limit=limit)


def _by_category(cases: Sequence[FaultCase], trials: Sequence[Trial], of: str) -> dict[str, float]:
    good, all_of = Counter[str](), Counter[str]()
    for case, trial in zip(cases, trials, strict=True):
        all_of[case.category] += 1
        good[case.category] += trial.detected if of == "seen" else trial.named
    return {f"{c}_share": good[c] / all_of[c] for c in CATEGORIES if all_of[c]}


def sound_ones(modules: Sequence[Healthy], trials: Sequence[Trial]) -> Iterator[Result]:
    """False failures, each with its reason."""
    wrong = [t for t in trials if t.failed or t.error]
    note = " | ".join(f"{t.name}: {t.error or t.failed[0]}" for t in wrong[:5])
    detail = {"modules_count": float(len(modules)), "findings_count": float(sum(len(t.failed) for t in trials))}
    yield Result("false failures", float(len(wrong)), "sound modules", None, "", True, detail, 0.0, note)


def times(trials: Sequence[Trial]) -> Iterator[Result]:
    """The slowest of each level, in simulated time, faults included."""
    power_on = max((t.spent(Level.POWER_ON) for t in trials), default=0.0)
    light = max((t.spent(*LIGHT) for t in trials), default=0.0)
    tec = max((t.spent(*LIGHT, tec=True) for t in trials), default=0.0)
    yield Result("power-on", power_on, "s at most", None, "", True, {}, POWER_ON_S)
    yield Result("light", light, "s at most", None, "", True, {}, LIGHT_S)
    yield Result("temperature", tec, "s at most", None, "", True, {}, TEC_S)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all limits kept, 1 not, 2 no such case."""
    from benchmarks.__main__ import line

    p = argparse.ArgumentParser(prog="python -m benchmarks.selftest", description=__doc__)
    p.add_argument("--only", metavar="TEXT", help="only the cases whose name has this, with every failed finding")
    p.add_argument("--healthy", type=int, default=HEALTHY_A_SIDE, metavar="N", help="sound modules of each kind")
    p.add_argument("--processes", type=int, default=PROCESSES, metavar="N", help=f"default {PROCESSES}")
    chosen = p.parse_args(argv)
    cases = [c for c in CASES if chosen.only is None or chosen.only in c.name]
    if not cases:
        sys.stderr.write(f"no case has {chosen.only!r} in its name\n")
        return 2
    if chosen.only is not None:
        return _tell(cases, chosen.processes)
    results = []
    for result in run(cases, chosen.healthy, processes=chosen.processes):
        results.append(result)
        sys.stdout.write(line(result) + "\n")
        sys.stdout.flush()
    return 0 if all(r.ok for r in results) else 1


def _tell(cases: Sequence[FaultCase], processes: int) -> int:
    def told(_n: int, trial: Trial) -> None:
        seconds = ", ".join(f"{level} {s:.1f} s" for level, s in trial.seconds.items())
        lines = [f"{trial.name}: {said(trial)} ({seconds})", *(f"    {why}" for why in trial.failed)]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()

    trials = fault_trials(cases, told, processes)
    return 0 if all(t.detected and t.named for t in trials) else 1


if __name__ == "__main__":
    sys.exit(main())
