"""The lock's ledger: how long it held, what it lost it to, how fast it came back. Kept over restarts.

One JSON object a line, appended: an event when it happens, and now and then a checkpoint with all sums. After a crash
the last checkpoint and the events behind it are what is known; a torn last line is ignored.
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qmodd.control.phase_types import LockReport, Stage

CHECKPOINT_S = 60.0
ROTATE_BYTES = 1_000_000
REMEMBERED = 1000
# A gap between two looks longer than this was no service: nothing is counted for it.
GAP_S = 60.0

Record = Callable[[str, Mapping[str, Any]], object]


def _silent(_name: str, _fields: Mapping[str, Any]) -> None:
    return None


@dataclass
class Sums:
    """What a checkpoint holds. Times in s; `causes`: losses by cause; `relock_s`: the last times to lock again."""

    stage_s: dict[str, float] = field(default_factory=dict)
    losses: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    relock_s: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    wraps: int = 0
    outage_s: float = 0.0
    faults: int = 0
    since_first_lock_s: float = 0.0
    locked_s: float = 0.0

    def dump(self) -> dict[str, Any]:
        return {**vars(self), "relock_s": [round(s, 3) for s in self.relock_s]}

    @classmethod
    def load(cls, raw: Mapping[str, Any]) -> Sums:
        known = {k: v for k, v in raw.items() if k in cls.__dataclass_fields__}
        known["relock_s"] = deque(known.get("relock_s", ()), maxlen=REMEMBERED)
        return cls(**known)


class LockLedger:
    """`path` None: in memory only. `stamp` gives the time to write beside each line, `record` takes events for the log.

    Raises OSError when an existing ledger cannot be read or written.
    """

    def __init__(self, path: Path | None, stamp: Callable[[], str], record: Record = _silent) -> None:
        self._path, self._stamp, self._record = path, stamp, record
        self.sums = Sums()
        self._last_s: float | None = None
        self._stage: Stage | None = None
        self._locked = False
        self._lost_s: float | None = None
        self._checkpoint_s = -math.inf
        if path is not None:
            self._restore(path)

    def see(self, now_s: float, report: LockReport) -> None:
        """Once a period, with what is true now."""
        s = self.sums
        dt = 0.0 if self._last_s is None else now_s - self._last_s
        if 0.0 < dt < GAP_S and self._stage is not None:
            s.stage_s[str(self._stage)] = s.stage_s.get(str(self._stage), 0.0) + dt
            if s.locked_s > 0.0 or self._locked:
                s.since_first_lock_s += dt
            s.locked_s += dt if self._locked else 0.0
        self._last_s, self._stage = now_s, report.stage
        if self._locked and not report.locked:
            self._lost_s = now_s
            self._event("lost", cause=report.why)
        elif report.locked and not self._locked and self._lost_s is not None:
            self._event("relocked", seconds=round(now_s - self._lost_s, 3))
            self._lost_s = None
        self._locked = report.locked
        if now_s - self._checkpoint_s >= CHECKPOINT_S:
            self._checkpoint_s = now_s
            self._write({"event": "checkpoint", **s.dump()})

    def wrapped(self, direction: int, outage_s: float, balanced: bool) -> None:
        """The heater hopped by a turn; nothing of `outage_s` went into a key."""
        self._event("wrap", direction=direction, outage_s=round(outage_s, 4), balanced=balanced)

    def fault(self, why: str) -> None:
        """The lock has given up."""
        self._event("fault", why=why)

    def pause(self) -> None:
        """The loop rests on purpose: what follows is not counted, and not a loss."""
        self._last_s, self._stage, self._locked, self._lost_s = None, None, False, None

    def numbers(self, report: LockReport | None = None) -> dict[str, int | float | bool]:
        """Flat, for telemetry."""
        s, times = self.sums, list(self.sums.relock_s)
        out: dict[str, int | float | bool] = {
            "uptime": s.locked_s / s.since_first_lock_s if s.since_first_lock_s else 0.0,
            "losses_count": s.losses,
            "ledger_wraps_count": s.wraps,
            "faults_count": s.faults,
            "outage_s": s.outage_s,
            **{f"stage_{name.replace('-', '_')}_s": seconds for name, seconds in s.stage_s.items()},
        }
        if times:
            out |= {f"relock_s_p{p}": float(np.percentile(times, p)) for p in (50, 99)}
        if report is not None:
            out |= {
                "locked": report.locked,
                "error_deg": math.degrees(report.error_rad),
                "sigma_deg": math.degrees(report.sigma_rad),
                "residual_deg_rms": math.degrees(report.residual_rms_rad),
                "drift_deg_per_s": math.degrees(report.drift_rad_per_s),
                "visibility": report.visibility,
                "heater_w": report.power_w,
                "wraps_count": report.wraps,
                "relocks_count": report.relocks,
                "attempts_count": report.attempts,
                "saturated": report.saturated,
            }
            if math.isfinite(report.age_s):
                out["counts_age_s"] = report.age_s
        return out

    def _event(self, name: str, **fields: Any) -> None:
        self._apply(name, fields)
        self._write({"event": name, **fields})
        self._record(f"phase.{name}", fields)

    def _apply(self, name: str, fields: Mapping[str, Any]) -> None:
        s = self.sums
        if name == "lost":
            s.losses += 1
            cause = _kind(str(fields.get("cause", "")))
            s.causes[cause] = s.causes.get(cause, 0) + 1
        elif name == "relocked":
            s.relock_s.append(float(fields["seconds"]))
        elif name == "wrap":
            s.wraps += 1
            s.outage_s += float(fields["outage_s"])
        elif name == "fault":
            s.faults += 1

    def _restore(self, path: Path) -> None:
        for old in (path.with_suffix(path.suffix + ".1"), path):
            if old.exists():
                for line in old.read_text(encoding="utf-8", errors="replace").splitlines():
                    self._replay(line)

    def _replay(self, line: str) -> None:
        try:
            entry = json.loads(line)
            name = entry.pop("event")
            if name == "checkpoint":
                self.sums = Sums.load(entry)
            else:
                self._apply(name, entry)
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # torn by a crash, or not ours: what the other lines say holds

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        if self._path.exists() and self._path.stat().st_size > ROTATE_BYTES:
            self._path.replace(self._path.with_suffix(self._path.suffix + ".1"))
            if entry["event"] != "checkpoint":
                self._append({"event": "checkpoint", **self.sums.dump()})
                return
        self._append(entry)

    def _append(self, entry: Mapping[str, Any]) -> None:
        assert self._path is not None
        line = json.dumps({"t": self._stamp(), **entry}, separators=(",", ":")).encode() + b"\n"
        # One write of a whole line: a killed process leaves all of it or a torn end that the next start skips.
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line if self._whole() else b"\n" + line)
        finally:
            os.close(handle)

    def _whole(self) -> bool:
        """The file ends with a complete line."""
        assert self._path is not None
        try:
            with self._path.open("rb") as f:
                f.seek(-1, os.SEEK_END)
                return f.read(1) == b"\n"
        except OSError:
            return True  # empty or not there


def _kind(cause: str) -> str:
    """A cause without its numbers, so that equal ones are counted together."""
    words = [w for w in cause.split() if not any(ch.isdigit() for ch in w)]
    return " ".join(words)[:60]
