from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.monitoring.alarms import Alarms, Change, EventType, Kind, Severity, catalogue


def kind(id: str, *roots: str, raise_s: float = 0.0, clear_s: float = 5.0, latched: bool = False) -> Kind:
    return Kind(
        id, Severity.MAJOR, EventType.EQUIPMENT, "lossOfSignal", f"{id} is wrong", roots, raise_s, clear_s, latched
    )


CHAIN = catalogue([kind("fibre"), kind("counts", "fibre"), kind("lock", "counts"), kind("keys", "lock", "counts")])


def told(changes: list[Change]) -> list[tuple[str, str]]:
    return [(c.what, c.alarm.id) for c in changes]


def test_raised_after_its_time_and_cleared_after_its_time() -> None:
    alarms = Alarms(catalogue([kind("fan", raise_s=3.0, clear_s=10.0)]))
    assert alarms.observe("fan", True, 100.0, "800 rpm; 1500 is the least") == []
    assert alarms.tick(102.9) == []
    (raised,) = alarms.tick(103.0)
    assert (raised.what, raised.alarm.why, raised.alarm.occurred) == ("raised", "800 rpm; 1500 is the least", 100.0)
    assert alarms.observe("fan", False, 110.0) == []
    assert alarms.observe("fan", True, 115.0) == [], "it came back before it was cleared: the same occurrence"
    assert alarms.observe("fan", False, 120.0) == []
    (cleared,) = alarms.tick(130.0)
    assert (cleared.what, cleared.alarm.severity, cleared.alarm.count) == ("cleared", "cleared", 2)
    figures = alarms.figures()
    assert (figures.raised, figures.mttd_s, figures.mtta_s, figures.mttr_s) == (1, 3.0, None, 20.0)


def test_a_fibre_cut_raises_one_alarm_not_four() -> None:
    alarms = Alarms(CHAIN)
    out: list[Change] = []
    for t, id in ((0.0, "keys"), (0.2, "lock"), (0.4, "counts"), (1.5, "fibre")):
        out += alarms.observe(id, True, t)
    for t in (2.0, 5.0, 60.0):
        out += alarms.tick(t)
    assert told(out) == [("raised", "fibre")]
    assert alarms.suppressed() == {"keys": "fibre", "lock": "fibre", "counts": "fibre"}
    for id in ("fibre", "counts", "keys"):
        out += alarms.observe(id, False, 61.0)
    # The lock alone outlives its root, by more than it needs to recover: now it is an alarm of its own.
    out += alarms.tick(66.0)
    out += alarms.tick(90.0)
    assert told(out) == [("raised", "fibre"), ("cleared", "fibre")]
    out += alarms.tick(97.0)
    assert told(out) == [("raised", "fibre"), ("cleared", "fibre"), ("raised", "lock")]


def test_a_consequence_that_was_raised_first_steps_back() -> None:
    alarms = Alarms(CHAIN)
    assert told(alarms.observe("counts", True, 0.0) + alarms.tick(2.0)) == [("raised", "counts")]
    assert told(alarms.observe("fibre", True, 10.0)) == [("suppressed", "counts"), ("raised", "fibre")] or told(
        alarms.tick(10.0)
    ) == [("suppressed", "counts")]
    assert [a.id for a in alarms.active()] == ["fibre"]


def test_a_root_that_is_never_raised_changes_nothing_of_what_people_know() -> None:
    alarms = Alarms(catalogue([kind("peer", raise_s=15.0), kind("light", "peer")]))
    assert told(alarms.observe("light", True, 0.0) + alarms.tick(2.0)) == [("raised", "light")]
    assert alarms.observe("peer", True, 10.0) + alarms.observe("peer", False, 20.0) == []
    assert [a.id for a in alarms.active()] == ["light"]
    alarms.observe("peer", True, 30.0)
    assert told(alarms.tick(45.0)) == [("suppressed", "light"), ("raised", "peer")]


def test_a_latched_alarm_waits_for_a_person() -> None:
    alarms = Alarms(catalogue([kind("overheat", latched=True)]))
    alarms.observe("overheat", True, 0.0)
    alarms.observe("overheat", False, 1.0)
    assert alarms.tick(1e6) == []
    changes = alarms.acknowledge("overheat", "ann", 1e6)
    assert told(changes) == [("acknowledged", "overheat"), ("cleared", "overheat")]
    assert alarms.figures().mtta_s == 1e6
    with pytest.raises(LookupError, match="not active"):
        alarms.acknowledge("overheat", "ann", 1e6)


def test_shelved_and_in_a_maintenance_window() -> None:
    alarms = Alarms(catalogue([kind("a"), kind("b")]))
    alarms.observe("a", True, 0.0)
    (shelved,) = alarms.shelve("a", "bob", 50.0, 1.0)
    assert shelved.alarm.shelved_until == 50.0
    assert told(alarms.tick(50.0)) == [("released", "a")]
    alarms.maintenance(100.0)
    assert alarms.observe("b", True, 60.0) == []
    assert told(alarms.tick(100.0)) == [("raised", "b")]
    with pytest.raises(ValueError, match="in the past"):
        alarms.shelve("a", "bob", 1.0, 100.0)
    with pytest.raises(LookupError, match="no alarm"):
        alarms.shelve("c", "bob", 200.0, 100.0)


def test_a_changed_reason_is_told_once() -> None:
    alarms = Alarms(catalogue([kind("a")]))
    alarms.observe("a", True, 0.0, "one")
    assert told(alarms.observe("a", True, 1.0, "two")) == [("changed", "a")]
    assert alarms.observe("a", True, 2.0, "two") == []


def test_catalogues_that_contradict_themselves() -> None:
    with pytest.raises(ValueError, match="two alarms are called 'a'"):
        catalogue([kind("a"), kind("a")])
    with pytest.raises(ValueError, match="root 'b' is not in the catalogue"):
        Alarms(catalogue([kind("a", "b")]))


steps = st.lists(
    st.tuples(st.sampled_from(sorted(CHAIN)), st.booleans(), st.floats(0.0, 8.0), st.booleans()), max_size=60
)


@given(steps)
def test_whatever_happens(history: list[tuple[str, bool, float, bool]]) -> None:
    """Never two raises without a clear between, never raised while a root is; a restart changes nothing; once all is
    well, all is cleared."""
    alarms = Alarms(CHAIN)
    now, up = 0.0, set[str]()
    for id, active, dt, restart in history:
        now += dt
        changes = alarms.tick(now) + alarms.observe(id, active, now)
        for c in changes:
            if c.what == "raised":
                assert c.alarm.id not in up
                up.add(c.alarm.id)
            elif c.what == "cleared":
                up.remove(c.alarm.id)
        shown = {a.id for a in alarms.active()}
        assert shown <= up
        for a in shown:
            assert not shown & set(CHAIN[a].because_of)
        if restart:
            snapshot = json.loads(json.dumps(alarms.snapshot()))
            again = Alarms(CHAIN)
            again.restore(snapshot)
            assert {a.id for a in again.active()} == shown
            assert again.figures() == alarms.figures()
    for id in CHAIN:
        alarms.observe(id, False, now)
    alarms.tick(now + 100.0)
    alarms.tick(now + 200.0)
    assert alarms.active() == []
