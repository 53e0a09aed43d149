"""From what modules publish to the gates of a commissioning. Pure; the same for a running and an emulated pair."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

MOST_LOSS_DB = 20.0
MOST_QBER = 0.03
LEAST_SKR_BPS = 0.0


@dataclass(frozen=True)
class Gate:
    """One thing that must hold before the pair is handed over. `ok` None: not known yet; `hint` says what to do."""

    name: str
    ok: bool | None
    read: str
    limit: str
    hint: str = ""


@dataclass
class Heard:
    """One module's topics, newest value each, and the first time that something was so (s from the begin)."""

    serial: str
    said: dict[str, Any] = field(default_factory=dict)
    events: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    @property
    def side(self) -> str:
        """alice or bob, by what only one of them has; "" before that is known."""
        test = self.said.get("selftest")
        return str(test.get("side", "")) if test else ""

    def first(self, event: str, **values: Any) -> float | None:
        """When an event first came with these values, s."""
        found = (t for t, e in self.events if e.get("event") == event and values.items() <= fields_of(e).items())
        return next(found, None)

    def record(self, name: str) -> dict[str, Any] | None:
        found = self.said.get(f"calibration/{name}")
        return found if isinstance(found, dict) else None


def fields_of(event: dict[str, Any]) -> dict[str, Any]:
    """An event's own fields, whether they came inside `fields` (as published) or beside the name (as logged)."""
    inner = event.get("fields")
    return {**event, **inner} if isinstance(inner, dict) else event


@dataclass
class Pair:
    """Both modules, as far as they were heard. `self_tests`: reports of longer levels than those that were published,
    by side, JSON-ready as on the topic."""

    modules: dict[str, Heard] = field(default_factory=dict)
    self_tests: dict[str, dict[str, Any]] = field(default_factory=dict)
    most_loss_db: float = MOST_LOSS_DB

    def take(self, serial: str, suffix: str, payload: bytes, at_s: float) -> None:
        """One message; what is no JSON is passed over."""
        heard = self.modules.setdefault(serial, Heard(serial))
        try:
            value = json.loads(payload)
        except ValueError:
            heard.said.pop(suffix, None)
            return
        if suffix == "event" and isinstance(value, dict):
            heard.events.append((at_s, value))
        else:
            heard.said[suffix] = value

    def side(self, side: str) -> Heard | None:
        return next((h for h in self.modules.values() if h.side == side), None)

    def blocks(self) -> list[tuple[float, dict[str, Any]]]:
        """Committed blocks as the receiver told them (or whoever told any)."""
        for heard in (self.side("bob"), *self.modules.values()):
            if heard is not None and (found := [(t, fields_of(e)) for t, e in heard.events if _kept(e)]):
                return found
        return []

    def complete(self) -> bool:
        """Everything that the report needs was heard."""
        return all(g.ok is not None for g in self.gates())

    def passed(self) -> bool:
        return all(g.ok for g in self.gates())

    def gates(self) -> list[Gate]:
        """In the order of a commissioning."""
        return [*self._identity(), self._loss(), *self._tests(), self._lock(), *self._keys(), *self._alarms()]

    def _identity(self) -> list[Gate]:
        out = []
        for side in ("alice", "bob"):
            heard = self.side(side)
            told = heard.said.get("assembly") if heard else None
            if not isinstance(told, dict):
                out.append(Gate(f"{side}: module identified", None, "not told yet", "a serial in its EEPROM"))
                continue
            faults = [str(f) for f in told.get("faults", [])]
            read = f"{told.get('module')}, factory record from {told.get('factory_record')}"
            ok = bool(told.get("module")) and not faults
            out.append(Gate(f"{side}: module identified", ok, "; ".join([read, *faults]), "EEPROM in order"))
        return out

    def _loss(self) -> Gate:
        name, limit = "insertion loss of the link", f"at most {self.most_loss_db:g} dB"
        bob = self.side("bob")
        record = bob.record("path_loss") if bob else None
        if record is None:
            hint = "qmodctl do BOB calibrate target=path_loss"
            return Gate(name, None, "not measured yet", limit, hint)
        db, sigma = float(record["value"]["fibre_db"]), float(record.get("sigma", {}).get("fibre_db", 0.0))
        hint = "" if db <= self.most_loss_db else "clean and look at every connector; a bend costs decibels, too"
        return Gate(name, db <= self.most_loss_db, f"{db:.2f} dB ± {sigma:.2f} dB", limit, hint)

    def _tests(self) -> list[Gate]:
        out = []
        for side in ("alice", "bob"):
            heard = self.side(side)
            told = self.self_tests.get(side) or (heard.said.get("selftest") if heard else None)
            name = f"{side}: self-test"
            if not isinstance(told, dict):
                out.append(Gate(name, None, "not told yet", "passed"))
                continue
            checks = told.get("checks", [])
            # A longer report says which were only not judged; what is published has passed and failed.
            failed = [c for c in checks if c.get("ok") is False and c.get("verdict", "failed") == "failed"]
            bad = [str(c.get("name")) for c in failed]
            read = f"up to {told.get('level')}: {len(checks) - len(bad)} of {len(checks)} in order"
            if told.get("part"):
                read += f"; broken: {told['part']}"
            elif bad:
                read += f"; not: {', '.join(bad[:4])}"
            out.append(Gate(name, bool(told.get("passed")), read, "passed"))
        return out

    def _lock(self) -> Gate:
        bob = self.side("bob")
        at = bob.first("phase.stage", stage="locked") if bob else None
        if at is None and self.blocks():
            return Gate("first lock", True, "before this was watched", "phase within its limit")
        read = "not yet" if at is None else f"{at:.0f} s after the begin"
        return Gate("first lock", None if at is None else True, read, "phase within its limit")

    def _keys(self) -> list[Gate]:
        blocks = self.blocks()
        if not blocks:
            none = "no block yet"
            return [
                Gate("first keys", None, none, "above 0 b/s"),
                Gate("QBER Z", None, none, f"at most {MOST_QBER:.0%}"),
                Gate("QBER X", None, none, f"at most {MOST_QBER:.0%}"),
            ]
        at, first = blocks[0]
        skr = float(first["key_bits"]) / float(first["seconds"]) if float(first["seconds"]) > 0.0 else 0.0
        read = f"{skr:,.0f} b/s, {first['key_bits']} bits, {at:.0f} s after the begin"
        out = [Gate("first keys", skr > LEAST_SKR_BPS, read, "above 0 b/s")]
        for basis in ("z", "x"):
            qber = float(first[f"qber_{basis}"])
            out.append(Gate(f"QBER {basis.upper()}", qber <= MOST_QBER, f"{qber:.2%}", f"at most {MOST_QBER:.0%}"))
        return out

    def _alarms(self) -> list[Gate]:
        grave = sorted(
            f"{h.serial} {v.get('id', t)}"
            for h in self.modules.values()
            for t, v in h.said.items()
            if t.startswith("alarm/") and isinstance(v, dict) and v.get("severity") in ("critical", "major")
        )
        read = ", ".join(grave) or "none"
        return [Gate("critical and major alarms", not grave, read, "none")]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ok": self.passed(),
            "complete": self.complete(),
            "gates": [g.__dict__ for g in self.gates()],
            "modules": {
                s: {"side": h.side, "assembly": h.said.get("assembly")} for s, h in sorted(self.modules.items())
            },
        }


def _kept(event: dict[str, Any]) -> bool:
    return event.get("event") == "block.kept"
