"""What the demo shows and reports, from nothing but the MQTT messages of the two modules."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ModuleView:
    """Last known state of one module."""

    name: str
    activity: str = "?"
    why: str = ""
    operational: str = "?"
    administrative: str = "?"
    telemetry: dict[str, dict[str, float]] = field(default_factory=dict)
    phase_error_deg: list[float] = field(default_factory=list)
    blocks: list[dict[str, Any]] = field(default_factory=list)
    ready_s: float | None = None

    def get(self, group: str, name: str) -> float:
        return self.telemetry.get(group, {}).get(name, math.nan)

    def doing(self) -> str:
        """Activity, with a bar while a calibration runs."""
        if self.activity != "calibrating":
            return self.activity
        fraction = self.get("progress", "fraction")
        if not 0.0 <= fraction <= 1.0 or self.why.startswith(("temperature", "bringing", "waiting")):
            return self.why[:44]
        done = round(10 * fraction)
        return f"[{'#' * done}{'.' * (10 - done)}] {self.why[:32]}"

    def describe(self) -> str:
        return f"{self.activity}: {self.why}" if self.why else self.activity


@dataclass
class View:
    """Collects messages; `say` is told each stage once, as it passes."""

    names: dict[str, str]  # serial -> alice, bob
    now: Callable[[], float]
    say: Callable[[str], None]
    modules: dict[str, ModuleView] = field(default_factory=dict)
    # Every alarm that was raised, and those that are active now, by module and alarm.
    raised: dict[tuple[str, str], str] = field(default_factory=dict)
    active: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.modules = {name: ModuleView(name) for name in self.names.values()}

    def message(self, serial: str, suffix: str, payload: bytes) -> None:
        """One MQTT message of a module; what is not JSON is ignored here, the schema is checked elsewhere."""
        name = self.names.get(serial)
        if name is None:
            return
        if not payload:
            self.active.discard((name, suffix.removeprefix("alarm/")))
            return
        try:
            body = json.loads(payload)
        except ValueError:
            return
        module = self.modules[name]
        head, _, tail = suffix.partition("/")
        if head == "state":
            self._state(module, body)
        elif head == "telemetry":
            module.telemetry[tail] = body
            if tail == "phase" and body.get("locked") == 1 and "error_deg" in body:
                module.phase_error_deg.append(float(body["error_deg"]))
        elif head == "calibration":
            self.say(f"{name}: calibrated {tail}: {_values(body.get('value', {}))}")
        elif head == "selftest":
            bad = [c["name"] for c in body.get("checks", []) if not c.get("ok")]
            self.say(f"{name}: self-test {'passed' if body.get('passed') else 'FAILED: ' + ', '.join(bad)}")
        elif head == "event":
            self._event(module, body)
        elif head == "alarm":
            self.active.add((name, tail))
            self.raised[name, tail] = str(body.get("why", ""))

    def _state(self, module: ModuleView, body: dict[str, Any]) -> None:
        activity, why = body["activity"]["value"], body["activity"]["why"]
        if activity != module.activity:
            self.say(f"{module.name}: {activity} - {why}")
        module.activity, module.why = activity, why
        module.operational = body["operational"]["value"]
        module.administrative = body["administrative"]["value"]
        if activity in ("ready", "keying") and module.ready_s is None:
            module.ready_s = self.now()

    def _event(self, module: ModuleView, body: dict[str, Any]) -> None:
        fields = body.get("fields", {})
        if body.get("event") == "block.kept":
            module.blocks.append(fields)
            if module.name == "alice":
                self.say(
                    f"block {len(module.blocks)}: n_Z {fields.get('n_z'):,}, QBER Z {fields.get('qber_z', 0):.2%} "
                    f"X {fields.get('qber_x', 0):.2%}, {fields.get('key_bits'):,} secret bits"
                )
        elif body.get("event") == "alarm.raised":
            self.say(f"{module.name}: ALARM {fields.get('alarm')}: {fields.get('why')}")
        elif body.get("event") in ("block.aborted", "session.failed"):
            self.say(f"{module.name}: {body['event']}: {fields.get('why')}")

    def line(self, delivered: int) -> str:
        """One line a second."""
        a, b = self.modules["alice"], self.modules["bob"]
        if "calibrating" in (a.activity, b.activity):
            return f"alice {a.doing():<46} bob {b.doing():<46}"
        return (
            f"alice {a.activity:<11} bob {b.activity:<11} QBER Z {_percent(self.last('qber_z'))} "
            f"X {_percent(self.last('qber_x'))}  sifted {_rate(b.get('link', 'sifted_rate_per_s'))}/s  "
            f"secret {_rate(self.skr_bps())}b/s  phase {_degrees(b.get('phase', 'error_deg'))}  keys {delivered}"
            + (f"  ALARMS {len(self.active)}" if self.active else "")
        )

    def last(self, name: str) -> float:
        blocks = self.modules["bob"].blocks
        return float(blocks[-1][name]) if blocks else math.nan

    def skr_bps(self) -> float:
        """Secret bits of all blocks over the time from the first block's start to the last one's commit."""
        blocks = self.modules["bob"].blocks
        seconds = sum(float(b.get("seconds", 0.0)) for b in blocks)
        return sum(float(b.get("key_bits", 0)) for b in blocks) / seconds if seconds else math.nan

    def report(self) -> dict[str, Any]:
        """The part of the demo's JSON that comes from the modules."""
        blocks = self.modules["bob"].blocks
        n_z = sum(b["n_z"] for b in blocks) or math.nan
        n_x = sum(b["n_x"] for b in blocks) or math.nan
        errors = self.modules["bob"].phase_error_deg
        ready = [m.ready_s for m in self.modules.values()]
        return {
            "ready_s": _number(max(r for r in ready if r is not None) if all(r is not None for r in ready) else None),
            "skr_bps": _number(self.skr_bps()),
            "qber_z": _number(sum(b["qber_z"] * b["n_z"] for b in blocks) / n_z),
            "qber_x": _number(sum(b["qber_x"] * b["n_x"] for b in blocks) / n_x),
            "phase_error_estimate_rms_deg": _number(
                math.sqrt(sum(e * e for e in errors) / len(errors)) if errors else None
            ),
            "blocks": len(blocks),
            "final_states": {m.name: m.describe() for m in self.modules.values()},
            "alarms": [f"{name}: {id}: {why}" for (name, id), why in self.raised.items()],
        }


def _values(value: dict[str, Any]) -> str:
    shown = [f"{k} {v:.4g}" for k, v in value.items() if isinstance(v, int | float)]
    return ", ".join(shown[:3]) + (", ..." if len(shown) > 3 else "")


def _number(x: float | None) -> float | None:
    return None if x is None or not math.isfinite(x) else round(x, 6)


def _percent(x: float) -> str:
    return "   - " if math.isnan(x) else f"{x:5.2%}"


def _degrees(x: float) -> str:
    return "  - " if math.isnan(x) else f"{x:+.1f}°"


def _rate(x: float) -> str:
    for unit, scale in (("M", 1e6), ("k", 1e3)):
        if x >= scale:
            return f"{x / scale:.2f} {unit}"
    return "- " if math.isnan(x) else f"{x:.0f} "
