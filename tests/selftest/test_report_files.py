"""A report as JSON, as JUnit XML, as retained message: nothing lost on the way, nothing that the formats forbid."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.messages import SelftestReport
from qmodd.selftest.junit import junit
from qmodd.selftest.model import Finding, Level, Limits, Report, Verdict
from qmodd.selftest.report_json import as_dict, from_dict
from qmodd.selftest.retained import MOST_BYTES, MOST_CHECKS, message, report_of
from qmodd.selftest.words import allowed, reasons, shown, verdict
from tests.selftest.reports import broken, changed, healthy, report

# words


def test_verdicts() -> None:
    assert verdict(healthy(1)) == "passed: 8 values within their limits"
    assert verdict(changed(healthy(1), "rail_voltage", 4.18)) == "passed with 1 unusual of 8 values"
    assert verdict(broken()) == (
        "failed: heater split: open circuit; replace the chip (resistance.split: 420 ± 0.0001 kΩ, allowed: 60 to 130 Ω)"
    )


def test_a_failure_without_a_hint_gives_value_and_limits() -> None:
    spoilt = changed(healthy(1), "rail_voltage", 3.1)
    assert verdict(spoilt) == "failed: heater_rail: rail_voltage is 3.1 V; 3.8 to 4.2 V is allowed"


def test_reasons_for_an_alarm_are_short() -> None:
    spoilt = changed(changed(broken(), "rail_voltage", 3.1), "loss.input", 9.0, "clean the connector " * 50)
    assert len(reasons(spoilt)) <= 400
    assert reasons(spoilt).startswith(f"{spoilt.suspects[0]}: ")


@pytest.mark.parametrize(
    ("value", "unit", "limits", "value_text", "limits_text"),
    [
        (1.05e-9, "A", Limits(high=5e-9), "1.05 nA", "at most 5 nA"),
        (4.2e5, "ohm", Limits(60.0, 130.0), "420 kΩ", "60 to 130 Ω"),
        (-0.0021, "V", Limits(-2e-3, 2e-3), "-2.1 mV", "-2 to 2 mV"),
        (31.0, "dB", Limits(low=22.0), "31 dB", "at least 22 dB"),
        (1.0, "", Limits.exactly(1.0), "yes", "yes"),
        (0.0, "", Limits.exactly(1.0), "no", "yes"),
        (3.0, "", Limits.exactly(2.0), "3", "exactly 2"),
        (math.nan, "V", Limits(0.0, 1.0), "-", "0 to 1 V"),
        (6000.0, "rpm", Limits(), "6,000 rpm", "-"),
    ],
)
def test_values_as_people_read_them(value: float, unit: str, limits: Limits, value_text: str, limits_text: str) -> None:
    finding = Finding("x", value, unit, limits, "part")
    assert shown(finding) == value_text
    assert allowed(finding) == limits_text


# JSON


@pytest.mark.parametrize("made", [healthy(1), broken(), replace(healthy(2), mahalanobis=7.5)])
def test_json_and_back(made: Report) -> None:
    text = json.dumps(as_dict(made), allow_nan=False)
    again = from_dict(json.loads(text))
    assert as_dict(again) == as_dict(made)
    assert (again.passed, again.suspects, again.level) == (made.passed, made.suspects, made.level)
    assert [f.why for f in again.findings] == [f.why for f in made.findings]


def test_json_says_what_the_command_line_promises() -> None:
    out = as_dict(broken())
    assert out["passed"] is False
    assert (out["part"], out["suspects"][0]) == ("heater split", "heater split")
    keys = {"name", "value", "unit", "low", "high", "golden_z", "ok", "why"}
    assert all(keys <= set(c) for c in out["checks"])
    p_pi = next(c for c in out["checks"] if c["name"] == "p_pi.split")
    assert (p_pi["value"], p_pi["ok"]) == (None, False)


@pytest.mark.parametrize("raw", [{}, {"side": "alice"}, {**as_dict(healthy(1)), "checks": [{"name": "x"}]}])
def test_what_is_no_report_is_refused(raw: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a report"):
        from_dict(raw)


# JUnit: attributes and order of elements as in the schema that Jenkins and others validate against

SUITE = {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id", "package"}
INSIDE_CASE = {"skipped", "error", "failure", "system-out", "system-err"}


def parsed(made: Report) -> ElementTree.Element:
    return ElementTree.fromstring(junit(made))


@pytest.mark.parametrize("made", [healthy(1), broken()])
def test_junit_has_the_usual_form(made: Report) -> None:
    root = parsed(made)
    assert root.tag == "testsuites"
    for suite in root:
        assert suite.tag == "testsuite"
        assert set(suite.attrib) == SUITE
        tags = [child.tag for child in suite]
        assert tags == ["properties", *["testcase"] * (len(tags) - 1)]
        cases = suite.findall("testcase")
        assert int(suite.attrib["tests"]) == len(cases)
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
        assert int(suite.attrib["skipped"]) == len(suite.findall("testcase/skipped"))
        for case in cases:
            assert set(case.attrib) == {"name", "classname", "time"}
            assert {child.tag for child in case} <= INSIDE_CASE
    assert int(root.attrib["tests"]) == sum(int(s.attrib["tests"]) for s in root) == len(made.findings)
    assert int(root.attrib["failures"]) == len(made.failed)


def test_junit_has_a_suite_a_level_and_says_why() -> None:
    root = parsed(broken())
    assert [s.attrib["name"] for s in root] == ["power-on", "light-off", "light-on"]
    case = root.find(".//testcase[@name='resistance.split']")
    assert case is not None
    failure = case.find("failure")
    assert failure is not None
    assert "open circuit; replace the chip" in failure.attrib["message"]
    assert case.attrib["classname"] == "light-off.heater split"
    skipped = root.find(".//testcase[@name='crosstalk.split']/skipped")
    assert skipped is not None
    assert skipped.attrib["message"] == "heater split has failed"
    properties = {p.attrib["name"]: p.attrib["value"] for p in root.iter("property")}
    assert properties["suspects"].startswith("heater split")


@given(st.text(max_size=60), st.text(max_size=60))
def test_junit_holds_any_text(hint: str, part: str) -> None:
    made = report([Finding("x", 2.0, "V", Limits(0.0, 1.0), part, hint=hint)])
    assert int(parsed(made).attrib["failures"]) == 1


# the retained message


@pytest.mark.parametrize("made", [healthy(1), broken(), replace(healthy(2), mahalanobis=7.5)])
def test_message_and_back(made: Report) -> None:
    told = SelftestReport.model_validate_json(message(made).payload())
    again = report_of(told, made.serial)
    assert [(f.name, f.verdict, f.part, f.level) for f in again.findings] == [
        (f.name, f.verdict, f.part, f.level) for f in made.findings
    ]
    assert [f.why for f in again.findings] == [f.why for f in made.findings]
    assert verdict(again) == verdict(made) == told.verdict
    assert again.level_seconds == made.level_seconds


def test_a_large_report_leaves_out_only_what_passed() -> None:
    """In their order, within the bytes and the number that a message may have."""
    good = [
        Finding(f"value.{i}", 1.0, "V", Limits(0.0, 2.0), f"part {i}", sigma=0.1, level=Level.LIGHT_ON)
        for i in range(3000)
    ]
    bad = [replace(f, value=3.0, hint="too much of it. " * 20) for f in good[2900:2950]]
    made = report(good[:2900] + bad + good[2950:])
    told = message(made)
    assert len(told.payload()) <= MOST_BYTES
    assert len(told.checks) <= MOST_CHECKS
    assert told.left_out == 3000 - len(told.checks) > 0
    assert sum(not c.ok for c in told.checks) == 50
    kept = [c.name for c in told.checks]
    assert kept == sorted(kept, key=lambda name: int(name.partition(".")[2]))


def test_names_that_topics_would_not_hold_are_made_to_fit() -> None:
    finding = Finding("µ of bus i2c:1 " * 9, 1.0, "V" * 50, Limits(), "p" * 99)
    (check,) = message(report([finding])).checks
    assert len(check.name) <= 64
    assert (len(check.unit), len(check.part)) == (32, 64)
    assert Verdict(check.verdict) is Verdict.PASSED
