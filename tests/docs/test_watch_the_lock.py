"""docs/how-to/watch-the-lock.md names the stages and limits that the phase lock has."""

from __future__ import annotations

import re

from qmodd.config import ControlSection
from qmodd.control.phase_stages import ANY, TABLE
from qmodd.control.phase_types import Stage
from tests.docs.pages import DOCS, code, rows, sections

PAGE = DOCS / "how-to" / "watch-the-lock.md"


def test_every_stage_is_explained_in_order() -> None:
    assert [code(row[0]) for row in rows(sections(PAGE)["Stages"])] == [str(s) for s in Stage]


def test_where_a_stage_leads_is_a_way_that_the_table_has() -> None:
    """Only ways of its own; what leads anywhere from everywhere is not repeated in each row."""
    for row in rows(sections(PAGE)["Stages"]):
        stage = Stage(code(row[0]))
        for named in re.findall(r"`([^`]+)`", row[2]):
            if named in set(Stage):
                target = Stage(named)
                assert any(t.target is target and stage in t.sources for t in TABLE), f"{stage} -> {target}"
    assert {t.target for t in TABLE} == ANY


def test_limits_are_settings() -> None:
    named = re.findall(r"`control\.(\w+)`", PAGE.read_text())
    assert named
    assert set(named) <= set(ControlSection.model_fields)
