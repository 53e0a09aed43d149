"""Gates from topics, and the page that a person reads."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from qmodd.commission.findings import Pair
from qmodd.commission.page import page

ASSEMBLY = {
    "controller": "QM-B-0001",
    "module": "QB1",
    "factory_record": "eeprom",
    "faults": [],
    "fru": {"product": {"name": "<receiver>", "serial": "QB1"}},
    "slot": {"slot": "A", "sequence": 1},
}
BLOCK = {"key_bits": 1000, "seconds": 2.0, "qber_z": 0.006, "qber_x": 0.012, "modules": "QA1 QB1"}


def event(name: str, **fields: Any) -> dict[str, Any]:
    return {"seq": 1, "event": name, "fields": fields}


def heard(**changes: Any) -> Pair:
    """A pair in order; a change is by topic (`None` leaves it out)."""
    pair = Pair(most_loss_db=12.0)
    test = {"level": "power-on", "passed": True, "checks": [{"name": "a", "ok": True}]}
    topics: dict[str, tuple[str, Any]] = {
        "a_test": ("QM-A-0001/selftest", {**test, "side": "alice"}),
        "b_test": ("QM-B-0001/selftest", {**test, "side": "bob"}),
        "a_assembly": ("QM-A-0001/assembly", {**ASSEMBLY, "controller": "QM-A-0001", "module": "QA1"}),
        "b_assembly": ("QM-B-0001/assembly", ASSEMBLY),
        "loss": ("QM-B-0001/calibration/path_loss", {"value": {"fibre_db": 10.1}, "sigma": {"fibre_db": 0.5}}),
        "lock": ("QM-B-0001/event", event("phase.stage", stage="locked", why="")),
        "block": ("QM-B-0001/event", event("block.kept", **BLOCK)),
    }
    for at, (name, (topic, value)) in enumerate(topics.items()):
        value = changes.get(name, value)
        if value is not None:
            serial, _, suffix = topic.partition("/")
            pair.take(serial, suffix, json.dumps(value).encode(), float(at))
    return pair


def result(pair: Pair, gate: str) -> bool | None:
    return {g.name: g.ok for g in pair.gates()}[gate]


def test_a_pair_in_order_is_fit_for_service() -> None:
    pair = heard()
    assert pair.complete()
    assert pair.passed()
    read = {g.name: g.read for g in pair.gates()}
    assert read["first keys"].startswith("500 b/s")
    assert read["first lock"] == "5 s after the begin"
    assert read["insertion loss of the link"] == "10.10 dB ± 0.50 dB"


def test_each_gate_can_fail() -> None:
    for change, gate in (
        ({"loss": {"value": {"fibre_db": 12.5}, "sigma": {}}}, "insertion loss of the link"),
        ({"a_test": {"side": "alice", "level": "x", "passed": False, "checks": [], "part": "tec"}}, "alice: self-test"),
        ({"b_assembly": {**ASSEMBLY, "faults": ["FRU: torn"]}}, "bob: module identified"),
        ({"block": event("block.kept", **{**BLOCK, "key_bits": 0})}, "first keys"),
        ({"block": event("block.kept", **{**BLOCK, "qber_x": 0.05})}, "QBER X"),
    ):
        pair = heard(**change)
        assert result(pair, gate) is False, gate
        assert not pair.passed()


def test_what_was_not_heard_is_open_and_not_passed() -> None:
    for name, gate in (
        ("loss", "insertion loss of the link"),
        ("block", "first keys"),
        ("b_assembly", "bob: module identified"),
    ):
        pair = heard(**{name: None})
        assert result(pair, gate) is None
        assert not pair.complete()
        assert not pair.passed()
    assert result(heard(lock=None), "first lock") is True, "keys without a lock cannot be"
    assert result(heard(lock=None, block=None), "first lock") is None


def test_a_grave_alarm_stands_against_it_until_it_is_cleared() -> None:
    pair = heard()
    pair.take("QM-A-0001", "alarm/fan", json.dumps({"id": "fan", "severity": "major"}).encode(), 1.0)
    assert result(pair, "critical and major alarms") is False
    pair.take("QM-A-0001", "alarm/fan", b"", 2.0)
    assert pair.passed()


def test_a_longer_self_test_counts_instead_of_the_published_one() -> None:
    pair = heard()
    pair.self_tests["bob"] = {"level": "light-on", "passed": False, "checks": [{"name": "er", "ok": False}]}
    assert result(pair, "bob: self-test") is False


def test_the_page_stands_alone_and_escapes() -> None:
    text = page(heard(), "heard at <a broker>", datetime(2026, 1, 2, tzinfo=UTC))
    assert "Fit for service" in text
    assert "&lt;receiver&gt;" in text
    assert "<receiver>" not in text
    assert "<a broker>" not in text
    assert not any(word in text for word in ("<script", "http://", "https://", "src="))
    assert "Not complete: insertion loss of the link" in page(heard(loss=None), "x", datetime(2026, 1, 2, tzinfo=UTC))
