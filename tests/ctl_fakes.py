"""What modules would have published: for the tests of the NOC's tools."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from qmodd.app.kpi_desk import message
from qmodd.ctl_seen import Fleet
from qmodd.messages import ROOT, Alarm, Alive
from qmodd.monitoring.kpi import Kpis
from tests.uplink_fakes import EPOCH, START

Said = dict[str, bytes]
WHY = {"keying": "distilling keys", "safe": "interlock cover: open", "locking": "phase: searching the fringe"}


def history(module: str, days: float = 1.0, start: datetime = START, dip: bool = False, lock: bool = True) -> Kpis:
    """Counted from made-up events: a block every 100 s, an outage of half an hour a day when there is a dip."""
    kpis, seq = Kpis(), 0

    def tell(s: float, event: str, **fields: Any) -> None:
        nonlocal seq
        seq += 1
        t = (start + timedelta(seconds=s)).isoformat()
        kpis.event({"seq": seq, "t": t, "module": module, "event": event, **fields})

    tell(0, "core.started")
    if lock:
        tell(1, "phase.stage", stage="locked")
    tell(60, "state.activity", value="keying", why="")
    for n in range(1, int(days * 864)):
        s = 100.0 * n
        part = s % 86_400
        if dip and 40_000 <= part < 41_800:
            if part < 40_100:
                tell(s, "state.activity", value="locking", why="")
                tell(s + 1, "alarm.raised", alarm="phase-lost", after_s=4.0)
                tell(s + 30, "alarm.acknowledged", alarm="phase-lost", after_s=29.0)
            continue
        if dip and 41_800 <= part < 41_900:
            tell(s, "state.activity", value="keying", why="")
            tell(s + 1, "alarm.cleared", alarm="phase-lost", after_s=1800.0)
        wave = 1.0 + 0.2 * math.sin(s / 9000.0)
        qber_z, qber_x = 0.006 / wave, 0.013 / wave
        tell(s, "block.kept", key_bits=int(7.4e6 * wave), n_z=983_040, qber_z=qber_z, n_x=90_000, qber_x=qber_x)
        tell(s + 2, "key.acknowledged", recipient="kms", keys=700)
        tell(s + 3, "key.usable", recipient="kms", keys=700, age_s=3.2, age_max_s=4.0)
    kpis.advance((start + timedelta(days=days)).timestamp())
    return kpis


def alarm(id: str, severity: str = "major", **changes: Any) -> Alarm:
    return Alarm.model_validate(
        {
            "id": id,
            "severity": severity,
            "event_type": "equipmentAlarm",
            "probable_cause": "lossOfSignal",
            "problem": "made up",
            "why": "less than 5% of the usual detections in the gates while keys are sent",
            "occurred": START,
            "raised": START,
            "last": START,
            "runbook": f"docs/runbook/{id}.md",
            **changes,
        }
    )


def said(
    module: str,
    activity: str = "keying",
    *,
    online: bool = True,
    kpis: Kpis | None = None,
    alarms: list[Alarm] | None = None,
) -> Said:
    """Retained messages of one module, by topic below its root."""
    alive = Alive(state="online" if online else "offline", epoch=EPOCH, version="0.1.0", since=START)
    one = {"since": START.isoformat()}
    state: dict[str, Any] = {
        "administrative": {"value": "unlocked", "why": "never locked", **one},
        "operational": {
            "value": "enabled" if activity in ("keying", "ready") else "disabled",
            "why": WHY[activity],
            **one,
        },
        "activity": {"value": activity, "why": WHY[activity], **one},
        "inhibited": [],
    }
    if activity == "safe":
        held = ("laser", "heater_dac", "bias_dac", "tec")
        state["inhibited"] = [{"output": o, "why": WHY["safe"]} for o in held]
    out = {"alive": alive.payload(), "state": json.dumps(state).encode()}
    out |= {f"alarm/{a.id}": a.payload() for a in alarms or []}
    if kpis is not None:
        out["kpi"] = message(module, kpis).model_dump_json(exclude_defaults=True).encode()
    return out


def telemetry(n: int, skr_bps: float = 77_000.0, receiver: bool = True) -> Said:
    """The n-th second of a module that makes keys."""
    wave = math.sin(n / 7.0)
    keys = {
        "t": START.timestamp() + n,
        "seq": n,
        "distilled_count": 128,
        "delivered_count": 64,
        "created_count": 18_515 + 9 * n,
        "block_progress": n % 100 / 100,
        "secret_rate_bps": skr_bps * (1.0 + 0.1 * wave),
        "qber_z": 0.0058 * (1.0 - 0.1 * wave),
        "qber_x": 0.0121,
    }
    groups: dict[str, dict[str, Any]] = {"keys": keys, "link": {"sifted_rate_per_s": 813_730.0}}
    if receiver:
        groups["phase"] = {"locked": True, "error_deg": -0.3 * wave, "visibility": 0.987, "uptime": 0.9991}
    return {f"telemetry/{name}": json.dumps(values).encode() for name, values in groups.items()}


def event(seq: int, name: str, **fields: Any) -> Said:
    t = (START + timedelta(seconds=seq)).isoformat()
    return {"event": json.dumps({"seq": seq, "t": t, "module": "m", "event": name, "fields": fields}).encode()}


def topics(module: str, told: Said) -> Iterator[tuple[str, bytes]]:
    for suffix, payload in told.items():
        yield f"{ROOT}/{module}/{suffix}", payload


def hear(fleet: Fleet, module: str, told: Said, now_s: float = 0.0) -> None:
    for topic, payload in topics(module, told):
        fleet.hear(topic, payload, now_s)
