"""The page of a self-test: what it says, that it stands alone, and that its bars put values where they are."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.plot import Plot, Series
from qmodd.report import svg
from qmodd.selftest import page as page_module
from qmodd.selftest.bars import WIDTH, bar, scale
from qmodd.selftest.golden import limits_sha256, make
from qmodd.selftest.model import Finding, Level, Limits
from qmodd.selftest.page import page
from tests.selftest.reports import broken, healthy, report

FIGURE = Plot("Heater split", "current (A)", "voltage (V)", [Series("read", [0.0, 1.0], [0.0, 2.0])])


class Reader(HTMLParser):
    """Text as people see it, and a check that every element is closed."""

    VOID = frozenset({"meta", "col", "br", "rect", "line", "polygon", "path", "use", "circle"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def said(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


def test_the_verdict_is_on_top_in_words() -> None:
    read = Reader(page(broken()))
    assert read.open == []
    assert read.said.index("failed: heater split: open circuit; replace the chip") < read.said.index("What is to blame")
    assert "One part explains what failed" in read.said
    assert "It explains 1 more." in read.said
    assert "heater split has failed" in read.said


def test_a_good_module_blames_nobody() -> None:
    read = Reader(page(healthy(1)))
    assert "passed: 8 values within their limits" in read.said
    assert "to blame" not in read.said


def test_it_stands_alone() -> None:
    text = page(broken(), {"iv": FIGURE})
    assert all(link.startswith("#") for link in Reader(text).links)
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert "Heater split: voltage (V) over current (A)" in text


def test_without_matplotlib_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(_figure: object, _name: str) -> str:
        raise svg.NoPlots("plots need matplotlib: install the extra")

    monkeypatch.setattr(page_module, "draw", cannot)
    assert "plots need matplotlib" in Reader(page(healthy(1), {"iv": FIGURE})).said


def test_every_text_is_escaped() -> None:
    nasty = "<img src=x onerror=alert(1)>"
    found = Finding(nasty, 3.0, nasty, Limits(0.0, 1.0), nasty, hint=nasty)
    text = page(report([found], nasty))
    assert "<img" not in text
    assert nasty in Reader(text).said


def test_golden_values_are_told() -> None:
    golden = make([healthy(seed) for seed in range(8)], "2026-01-01", "0.1")
    read = Reader(page(golden.applied(broken())))
    assert "Mahalanobis distance T²" in read.said
    assert "resistance.split (> +99)" in read.said


def test_many_values_that_passed_are_folded() -> None:
    many = [Finding(f"v{i}", 1.0, "V", Limits(0.0, 2.0), "part") for i in range(100)]
    assert "100 values that passed" in Reader(page(report(many))).said


# bars


def drawn(limits: Limits, value: float) -> tuple[float, str]:
    """Where the mark of a value is, and its colour."""
    text = bar(Finding("x", value, "V", limits, "part"))
    match = re.search(r'bar-mark (\w+)" points="([\d.]+),\S+ ([\d.]+),\S+ ([\d.]+),', text)
    assert match is not None
    return (float(match[2]) + float(match[4])) / 2.0, match[1]


def test_mark_and_ticks() -> None:
    limits = Limits(0.0, 10.0, 2.0, 8.0)
    middle, colour = drawn(limits, 5.0)
    assert middle == pytest.approx(WIDTH / 2.0, abs=0.1)
    assert colour == "ok"
    assert drawn(limits, 9.0)[1] == "due"
    assert drawn(limits, 10.5)[1] == "bad"
    assert drawn(limits, 2.5)[0] < drawn(limits, 5.0)[0] < drawn(limits, 9.0)[0]


def test_far_outside_is_an_arrow_at_the_end() -> None:
    text = bar(Finding("x", 1e9, "V", Limits(0.0, 10.0), "part"))
    assert f'points="{WIDTH - 1:g},' in text


@pytest.mark.parametrize("limits", [Limits(), Limits.exactly(1.0)])
def test_nothing_to_draw(limits: Limits) -> None:
    assert bar(Finding("x", 1.0, "", limits, "part")) == ""
    assert bar(Finding("x", math.nan, "", Limits(0.0, 1.0), "part")) == ""


finite = st.floats(-1e12, 1e12)


@given(finite, finite, finite, st.sampled_from(["both", "low", "high"]))
def test_any_limits_can_be_drawn(a: float, b: float, value: float, kind: str) -> None:
    low, high = sorted((a, b))
    limits = Limits(low if kind != "high" else -math.inf, high if kind != "low" else math.inf)
    span = scale(limits, value)
    if kind == "both" and low == high:
        assert span is None
        return
    assert span is not None
    assert all(math.isfinite(x) for x in span)
    assert span[0] < span[1]
    text = bar(Finding("x", value, "V", limits, "part"))
    assert "nan" not in text
    assert "inf" not in text


def test_only_a_passed_production_run_is_a_certificate() -> None:
    made = replace(healthy(1), level=Level.PRODUCTION, controller="QM-A-0001", firmware_sha256="ab" * 32)
    text = page(made)
    assert f"Certificate of {made.serial}" in text
    assert "QM-A-0001" in text
    assert "ab" * 32 in text
    assert limits_sha256(made.findings) in text
    assert "Certificate" not in page(healthy(1))
    assert "Certificate" not in page(replace(broken(), level=Level.PRODUCTION))
