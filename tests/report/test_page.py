"""The report as a file: well-formed, self-contained, escaped, and with everything in it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from calibration.plot import Heatmap, Plot, Series
from qmodd.report.dag import SIGNS
from qmodd.report.page import page
from qmodd.report.style import STYLE
from qmodd.report.svg import DARK, LIGHT
from tests.report.made_up import EVIL, FRINGE, entry, record, report

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Reader(HTMLParser):
    """Nesting, elements, attributes and text; raises AssertionError where a tag is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def text() -> str:
    return page(report())


def test_it_holds_what_was_found(text: str) -> None:
    seen = Reader(text).text
    for expected in (
        "Calibration of QM-A-0001",
        "1 refused, 2 of 4 calibrations are good.",
        "2026-03-01 12:00:00 UTC, 33.6 s from power-on",
        "Heater I-V",
        "R(P) = R0 (1 + rho P)",
        "91.235",  # the value and its uncertainty have the same last digit
        "± 0.020",
        "31.234",
        "mW",
        "Residuals: 0.0123 rms over 3 readings, largest -0.02.",
        "version 3 of 2026-03-01 12:00:00 UTC, by ada",
        "2026-03-09 12:00:00 UTC",  # renewals count
        "submount 30.01 °C",
        "photodiode_zero 2",
        "abababababababab",
        "no light at pa1",
        "rests on it",
        "No plots: the raw readings are not kept any more.",
    ):
        assert expected in seen


def test_nothing_comes_from_outside_and_nothing_runs(text: str) -> None:
    reader = Reader(text)
    assert reader.elements["script"] == 0
    for name, value in reader.attributes:
        assert not name.startswith("on")
        if name in ("href", "src", "xlink:href"):
            assert value.startswith("#")
    assert "default-src 'none'" in text
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert "https://" not in text


def test_ids_are_unique_and_links_lead_somewhere(text: str) -> None:
    attributes = Reader(text).attributes
    ids = Counter(value for name, value in attributes if name == "id")
    assert max(ids.values()) == 1
    pointed = [value[1:] for name, value in attributes if name == "href"]
    pointed += re.findall(r"url\(#([^)]+)\)", text)
    pointed += [i for name, value in attributes if name in ("aria-labelledby",) for i in value.split()]
    assert set(pointed) <= set(ids)


def test_pictures_speak_to_those_who_cannot_see(text: str) -> None:
    assert text.count("<svg ") == text.count('<svg role="img"') == 3
    assert "photocurrent (µA) over heater power (mW)" in text
    assert "Marked: null at 21." in text
    assert "matrix of 2 rows and 2 columns, from -0.02 to 1 rad/rad" in text
    assert "filter_peak (refused) rests on heater_iv" in text


def test_every_text_is_escaped() -> None:
    plot = Plot(EVIL, EVIL, EVIL, (Series(EVIL, [0.0, 1.0], [1.0, 2.0]),), marks=((0.5, EVIL),))
    heat = Heatmap(EVIL, (EVIL,), (EVIL,), ((1.0,),), EVIL)
    bad = entry(
        "heater_iv",
        about=EVIL,
        equation=EVIL,
        why=EVIL,
        state="refused",
        needs=(),
        figures=(plot, heat),
        no_figures="",
        record=record("heater_iv", conditions=record("x").conditions.model_copy(update={"operator": EVIL})),
    )
    made = report(bad)
    side = replace(made.sides[0], serial=EVIL)
    text = page(replace(made, what=EVIL, sides=(side,)))
    reader = Reader(text)
    assert reader.elements["script"] == 0
    assert "<script" not in text
    assert reader.text.count("alert('x')") >= 8
    silent = page(replace(made, sides=(replace(side, entries=(replace(bad, figures=(), no_figures=EVIL),)),)))
    assert "<script" not in silent


def test_long_tables_are_folded() -> None:
    many = record("heater_iv", value={f"v{i}_w": 0.1 * i for i in range(40)}, covariance_names=(), covariance=())
    assert "<summary>40 values</summary>" in page(report(entry(record=many)))
    assert "<details>" not in page(report(entry()))


def test_without_residuals_nothing_is_said_of_them() -> None:
    bare = record("heater_iv", residuals=(), residual_rms=0.0)
    assert "Residuals" not in page(report(entry(record=bare)))


def test_all_good_is_said_so() -> None:
    seen = Reader(page(report(entry()))).text
    assert "1 of 1 calibrations are good." in seen
    assert "refused" not in seen


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast(colours: dict[str, str]) -> None:
    """WCAG 2.1: 4.5 for text, 3 for what is drawn."""
    for name, colour in colours.items():
        if name in ("card", "grid"):
            continue
        high, low = sorted((luminance(colour), luminance(colours["card"])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= (3.0 if re.fullmatch(r"s[1-7]", name) else 4.5), name


def test_the_style_sheet_has_every_colour() -> None:
    used = set(re.findall(r"var\(--([\w-]+)\)", page(report()) + STYLE))
    assert used <= set(LIGHT) | {"page"}
    assert set(LIGHT) == set(DARK)
    assert "prefers-color-scheme:dark" in STYLE
    assert "@media print" in STYLE
    assert {colour for _, colour in SIGNS.values()} <= set(LIGHT)


def test_the_same_report_gives_the_same_file() -> None:
    assert page(report(entry(figures=(FRINGE,)))) == page(report(entry(figures=(FRINGE,))))
