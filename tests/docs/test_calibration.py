"""docs/reference/calibration has a page for every calibration of both graphs, and they say what the code says."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from calibration.procedures import alice_graph, bob_graph
from qmodd.report.meanings import unknown
from qmodd.report.model import Report
from qmodd.report.pages import MOST_SVG_BYTES, PICTURE, Pages, of_an_emulated_pair, pages, without_numbers
from tests.docs.pages import DOCS

WHERE = DOCS / "reference" / "calibration"
NAMES = sorted({p.name for graph in (alice_graph(), bob_graph()) for p in graph})
REFRESH = "run `python -m qmodd.report.pages`"


@pytest.fixture(scope="module")
def pair() -> tuple[Pages, Report]:
    procedures, report = of_an_emulated_pair()
    return pages(procedures, report), report


@pytest.mark.parametrize("name", NAMES)
def test_every_calibration_has_its_page(name: str) -> None:
    assert (WHERE / f"{name}.md").exists(), REFRESH


def test_pages_say_what_the_code_says(pair: tuple[Pages, Report]) -> None:
    """Numbers of the emulated pair may have moved in their last digits; everything else is compared."""
    made, _ = pair
    for name, text in made.items():
        if name.endswith(".md"):
            assert without_numbers((WHERE / name).read_text()) == without_numbers(text), f"{name}: {REFRESH}"
    assert {p.name for p in WHERE.iterdir()} == set(made), REFRESH


def test_everything_in_the_example_is_good(pair: tuple[Pages, Report]) -> None:
    # The temperature loop has identified the plant on the way up: what the walk finds is good.
    states = {e.state: e.name for e in pair[1].entries if e.state != "redone"}
    assert states in ({}, {"good": "tec_plant"})


def test_every_value_has_a_meaning(pair: tuple[Pages, Report]) -> None:
    missing = {e.name: unknown(e.name, e.record.value) for e in pair[1].entries if e.record is not None}
    assert {name: values for name, values in missing.items() if values} == {}


def test_every_calibration_says_its_model_and_shows_a_plot(pair: tuple[Pages, Report]) -> None:
    assert [e.name for e in pair[1].entries if not e.equation] == []
    assert [e.name for e in pair[1].entries if not e.figures] == []


def test_pictures_are_small_and_well_formed() -> None:
    pictures = [*WHERE.glob("*.svg"), DOCS / PICTURE]
    for picture in pictures:
        text = picture.read_text()
        ElementTree.fromstring(text)
        assert "<script" not in text
        limit = 300_000 if picture.name == PICTURE else MOST_SVG_BYTES
        assert len(text) <= limit, picture.name
