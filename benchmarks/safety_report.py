"""What came of the faults of the safety benchmark: table and results."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.measure import Result
from benchmarks.safety_latches import Kills

SAFE_S = 1.0


@dataclass
class Told:
    """What came of it. `safe_s`: from detection to safe outputs (from death, where the daemon died); nan where service
    went on. `failures`: what did not hold, in words."""

    fault: str
    group: str
    stopped: bool
    safe_s: float = math.nan
    back_s: float = math.nan
    alarms: list[str] = field(default_factory=list)
    latches_set: int = 0
    latches_lost: int = 0
    failures: list[str] = field(default_factory=list)


def table(told: Sequence[Told]) -> str:
    """A line a group, then every failure."""
    lines = [f"{'group':<10} {'faults':>6} {'stopped':>8} {'safe max':>9} {'back max':>9} {'not ok':>7}  alarms"]
    for group in sorted({t.group for t in told}):
        own = [t for t in told if t.group == group]
        alarms = Counter(a.partition(": ")[2] for t in own for a in t.alarms)
        shown = ", ".join(f"{name} {n}" for name, n in alarms.most_common(6))
        lines.append(
            f"{group:<10} {len(own):>6} {sum(t.stopped for t in own):>8} {_most(t.safe_s for t in own):>7.2f} s "
            f"{_most(t.back_s for t in own):>7.0f} s {sum(bool(t.failures) for t in own):>7}  {shown}"
        )
    lines += [f"  {t.fault}: {'; '.join(t.failures)}" for t in told if t.failures]
    return "\n".join(lines)


def _most(values: Iterable[float]) -> float:
    return max((v for v in values if not math.isnan(v)), default=math.nan)


def results(told: Sequence[Told]) -> Iterator[Result]:
    stopped = [t for t in told if t.stopped]
    went_on = [t for t in told if not t.stopped]
    alarms = Counter(a.partition(": ")[2] for t in went_on for a in t.alarms)
    yield Result(
        "safety: outputs safe",
        _most(t.safe_s for t in told),
        "s after detection",
        None,
        "",
        less_is_better=True,
        limit=SAFE_S,
        detail={"faults_count": len(told), "stopped_count": len(stopped)},
        note="the slowest, by the world",
    )
    yield Result(
        "safety: latches lost",
        float(sum(t.latches_lost for t in told)),
        "latches",
        None,
        "",
        less_is_better=True,
        limit=0.0,
        detail={"set_count": float(sum(t.latches_set for t in told))},
    )
    yield Result(
        "safety: not one alarm",
        float(sum(any("alarms:" in f for f in t.failures) for t in told)),
        "faults",
        None,
        "",
        less_is_better=True,
        limit=0.0,
        note=f"service went on for {len(went_on)}, which raised {dict(alarms) or 'nothing'}",
    )
    yield Result(
        "safety: not back",
        float(sum(math.isnan(t.back_s) for t in told)),
        "faults",
        None,
        "",
        less_is_better=True,
        limit=0.0,
        detail={"back_max_s": _most(t.back_s for t in told)},
    )


def of_kills(kills: Kills) -> Result:
    """Processes that were killed while they set latches."""
    return Result(
        "safety: latches lost by SIGKILL",
        float(kills.lost + kills.unreadable),
        "latches",
        None,
        "",
        less_is_better=True,
        limit=0.0,
        detail={"kills_count": kills.kills, "set_count": kills.acknowledged, "in_a_write_count": kills.midway},
    )
