"""Calibration of drawn pairs against the emulator's truth: time, honesty of the records, accuracy, diagnoses.

`python -m benchmarks.calibration [--pairs N] [--table]` prints the table by parameter as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.diagnoses import CASES, diagnose
from benchmarks.honesty import CLASSES, READING_NOISE, Cold, accuracy, honesty, many, overall, report
from benchmarks.measure import Progress, Result, silent, wilson

PAIRS = 30
COLD_S, WARM_S, POINTS = 120.0, 15.0, 10.0
HONEST = (0.8, 1.25)
WORST = 5


def run(pairs: int = PAIRS, *, progress: Progress = silent) -> Iterator[Result]:
    """Figures of `pairs` drawn pairs at 0.5 % reading noise, then the broken modules."""
    runs = many(range(1, pairs + 1), told=lambda n: progress(0.8 * n / pairs, f"pair {n} of {pairs}"))
    yield from figures(runs)
    yield from diagnoses(lambda f, text: progress(0.8 + 0.2 * f, text))
    progress(1.0, "")


def figures(runs: Sequence[Cold]) -> Iterator[Result]:
    """What the cold and warm walks of these pairs say."""
    good = [r for r in runs if not r.failed]
    low, high = wilson(len(good), len(runs))
    share = {"pairs_count": float(len(runs)), "wilson_low": low, "wilson_high": high}
    yield Result("calibrated", len(good) / len(runs), "of pairs", None, "", detail=share, limit=1.0)
    yield from _times(good)
    yield _honest(good)
    for what in CLASSES:
        n, rms, most = accuracy(good, what)
        detail = {"most_of_95_percent": most, "values_count": float(n), "reading_noise": READING_NOISE}
        yield Result(what.name, rms, f"{what.unit} rms", None, "", less_is_better=True, detail=detail, limit=what.limit)


def _times(runs: Sequence[Cold]) -> Iterator[Result]:
    cold = [sum(r.seconds.values()) for r in runs]
    warm = [sum(r.warm_s.values()) for r in runs]
    sides = {f"{side}_s": max((r.seconds[side] for r in runs), default=0.0) for side in ("alice", "bob")}
    later = {"deferred_s": max((sum(r.deferred_s.values()) for r in runs), default=0.0)}
    most = max(cold, default=np.nan)
    yield Result("cold pair", most, "s at most", None, "", True, {**sides, **later}, COLD_S)
    points = float(max((r.points for r in runs), default=0))
    yield Result("sweep", points, "points at most", None, "", True, {}, POINTS)
    yield Result("warm pair", max(warm, default=np.nan), "s at most", None, "", True, {}, WARM_S)
    yield Result("redone when warm", float(sum(r.redone for r in runs)), "records", None, "", True, {}, 0.0)


def _honest(runs: Sequence[Cold]) -> Result:
    """Mean normalised error squared; in detail the parameters that are furthest from 1."""
    table = honesty(runs)
    inside = sum(0.5 <= h.nees <= 2.0 for h in table)
    detail = {"parameters_count": float(len(table)), "from_half_to_two_count": float(inside)}
    furthest = sorted(table, key=lambda h: -abs(np.log(max(h.nees, 1e-6))))
    detail |= {h.key: h.nees for h in furthest[:WORST]}
    return Result("honesty", overall(runs), "NEES", None, "", detail=detail, limit=HONEST)


def diagnoses(progress: Progress = silent) -> Iterator[Result]:
    """Every broken module: 1 where part, reading and limit are named and nothing wrong is stored."""
    for n, case in enumerate(CASES):
        progress(n / len(CASES), case.name)
        found = diagnose(case)
        yield Result(case.name, float(found.ok), "named", None, "", limit=1.0, note=found.reason or "not noticed")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all limits kept, 1 not."""
    from benchmarks.__main__ import line

    p = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    p.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help=f"drawn pairs (default {PAIRS})")
    p.add_argument("--table", action="store_true", help="only the pairs, parameter by parameter")
    chosen = p.parse_args(argv)
    if chosen.table:
        sys.stdout.write(report(many(range(1, chosen.pairs + 1))))
        return 0
    results = []
    for result in run(chosen.pairs):
        results.append(result)
        sys.stdout.write(line(result) + "\n")
        sys.stdout.flush()
    return 0 if all(r.ok for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
