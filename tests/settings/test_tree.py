"""Settings as the models of the configuration make them, and what is refused with which words."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.config import Config
from qmodd.settings.catalogue import CATALOGUE
from qmodd.settings.tree import NOT_SETTINGS, Leaf, NotAllowed, Value, tree, unknown

ALICE, BOB = tree("alice"), tree("bob")
EVERY = {**ALICE, **BOB}
NUMBERS = [leaf for leaf in EVERY.values() if leaf.kind in ("number", "integer") and leaf.applies != "file"]
CHOICES = [leaf for leaf in EVERY.values() if leaf.kind not in ("number", "integer") and leaf.applies != "file"]


def file_value(leaf: Leaf) -> Value:
    """What the model says without a file."""
    default: Value = Config.model_fields[leaf.section].annotation.model_fields[leaf.name].default  # type: ignore[union-attr]
    return default


def refused(leaf: Leaf, value: Any) -> NotAllowed:
    with pytest.raises(NotAllowed) as e:
        leaf.check(value, file_value(leaf))
    return e.value


def test_every_setting_is_described_and_every_entry_is_a_setting() -> None:
    assert set(CATALOGUE) == set(EVERY), "qmodd/settings/catalogue.py has to say of every scalar key when it applies"
    assert all(leaf.description for leaf in EVERY.values())


def test_no_text_no_file_and_nothing_of_the_module_itself() -> None:
    assert not {leaf.section for leaf in EVERY.values()} & {*NOT_SETTINGS, "device", "recipient"}
    for name in ("uplink.broker", "uplink.identity", "selftest.golden", "pair.pre_shared_key"):
        assert name not in EVERY


def test_what_only_one_side_uses_is_there_only() -> None:
    assert "source.mu_signal" in ALICE
    assert "source.mu_signal" not in BOB
    assert "control.phase_limit_deg" in BOB
    assert "control.phase_limit_deg" not in ALICE


def test_who_may_set() -> None:
    assert ALICE["uplink.telemetry_period_s"].roles == ("maintainer", "operator")
    for leaf in EVERY.values():
        if leaf.safe is not None:
            assert leaf.roles == ("maintainer",), leaf.path
        assert bool(leaf.roles) is (leaf.applies != "file"), leaf.path


def test_units_are_those_of_the_names() -> None:
    units = {"control.tec_kp_a_per_k": "A/K", "safety.tec_ramp_c_per_s": "K/s", "selftest.every_h": "h", "keys.n_z": ""}
    assert {path: EVERY[path].unit for path in units} == units


def test_a_limit_is_named_with_field_value_unit_and_limit() -> None:
    e = refused(BOB["control.phase_limit_deg"], 31.0)
    assert (e.code, str(e)) == (
        "out_of_range",
        "control.phase_limit_deg = 31 deg: above 0.5 and at most 30 deg is allowed",
    )
    assert e.limit is not None
    assert (e.limit.output, e.limit.value, e.limit.high, e.limit.unit) == ("control.phase_limit_deg", 31.0, 30.0, "deg")


def test_a_safety_limit_is_set_to_the_safe_side_only() -> None:
    leaf = ALICE["safety.submount_max_c"]
    assert leaf.check(55.0, 60.0) == 55.0
    assert leaf.check(60.0, 60.0) == 60.0
    e = refused(leaf, 60.5)
    assert e.code == "out_of_range"
    assert "30 to 60 C is allowed; a safety limit is only set lower than the file's 60 C" in str(e)
    fan = ALICE["safety.fan_min_rpm"]
    assert fan.check(1500, 1000.0) == 1500.0
    assert refused(fan, 900.0).limit.low == 1000.0  # type: ignore[union-attr]


def test_what_is_in_the_file_only() -> None:
    e = refused(ALICE["keys.eps_sec"], 1e-9)
    assert (e.code, "configuration file only" in str(e)) == ("file_only", True)


@pytest.mark.parametrize("leaf", NUMBERS, ids=lambda leaf: leaf.path)
@pytest.mark.parametrize("value", ["1", None, True, False, [1], {}, math.nan, math.inf, -math.inf])
def test_a_number_is_a_number(leaf: Leaf, value: Any) -> None:
    e = refused(leaf, value)
    assert e.code == "bad_arguments"
    assert str(e).startswith(f"{leaf.path} = ")


@pytest.mark.parametrize("leaf", CHOICES, ids=lambda leaf: leaf.path)
@pytest.mark.parametrize("value", ["", "nonsense", None, 1, True, ["auto"], "x" * 5000])
def test_a_choice_is_one_of_them(leaf: Leaf, value: Any) -> None:
    e = refused(leaf, value)
    assert e.code == "bad_arguments"
    assert len(str(e)) < 300
    assert all(str(choice) in str(e) for choice in leaf.choices)


@given(st.sampled_from(NUMBERS), st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_what_is_taken_is_within_every_limit(leaf: Leaf, value: float) -> None:
    """And what is refused is beyond one, or not whole."""
    file = file_value(leaf)
    low, high = leaf.limits(file)
    within = (
        (low is None or value >= low)
        and (high is None or value <= high)
        and (leaf.above is None or value > leaf.above)
        and (leaf.below is None or value < leaf.below)
    )
    whole = leaf.kind == "number" or isinstance(value, int)
    try:
        found = leaf.check(value, file)
    except NotAllowed:
        assert not (within and whole)
    else:
        assert within
        assert whole
        assert found == value
        assert isinstance(found, int if leaf.kind == "integer" else float)


def test_an_unknown_path_names_close_ones_and_the_other_side() -> None:
    assert "close to it: keys.store_limit" in str(unknown("keys.storelimit", "alice"))
    assert "uplink.telemetry_period_s" in str(unknown("telemetry_period_s", "bob"))
    assert "transmitter (alice)" in str(unknown("source.mu_signal", "bob"))
    assert len(str(unknown("x" * 5000, "bob"))) < 200
