"""Follows docs/how-to/add-a-calibration.md on an emulated module."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from calibration.graph import Graph
from calibration.record import Record
from calibration.store import Kind
from qmodd.calibrate.session import opened
from qmodd.calibrate.walk import Walk
from qmodd.report.svg import draw_all
from qmodd.soak import Run
from sim.scenario import Scenario
from tests.app.pair import build
from tests.docs.pages import DOCS, blocks, code, rows, sections

PAGE = DOCS / "how-to" / "add-a-calibration.md"
FILES = {b.file: b.text for b in blocks(PAGE) if b.file}


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The page's files as modules."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("graph")
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_it_is_made_checked_and_shown(page: ModuleType, tmp_path: Path) -> None:
    graph: Graph = page.graph
    procedure = graph["heater_gain"]
    seen: list[Record] = []
    kinds: list[Kind] = []

    async def script(run: Run) -> None:
        ticking = asyncio.ensure_future(run.tick())
        async with opened(run.sites["alice"].core, "a reader") as context:
            walk = Walk("alice", graph, context)
            first = await walk.run(["heater_gain"])
            assert first["heater_gain"].state == "redone"
            record = context.record("heater_gain")
            seen.append(record)
            context.store.subscribe(lambda change: kinds.append(change.kind))
            again = await walk.run(["heater_gain"])
            assert again["heater_gain"].state == "good"
            raw = context.raw.get(record.raw_sha256)
            assert raw is not None
            (picture,) = draw_all(procedure.figures(record, raw), "x")
            assert "Current source of the filter heater" in picture
            broken = record.model_copy(update={"value": {**record.value, "gain": 1.04}})
            found = await procedure.checked(context, broken)
            assert "recorded 1.0400" in found.why
        ticking.cancel()

    build(tmp_path, script, scenario=Scenario.from_mapping({"start": {"alice_c": 29.9}})).close()
    (record,) = seen
    assert record.value["gain"] == pytest.approx(1.0, abs=6.0 * record.sigma("gain") + 1e-3)
    assert record.parents == {"heater_iv": 1}
    assert len(record.residuals) == 6
    assert kinds == []


def test_attributes_are_those_of_a_procedure(page: ModuleType) -> None:
    named = [n for row in rows(sections(PAGE)["1. The file"]) for n in row[0].split(", ")]
    assert all(hasattr(page.HeaterGain, code(n)) for n in named)
    assert "deferred" in "".join(named)
