"""Every relative link of the documentation leads somewhere, its anchor included, and no line is too long."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, pages

# Made from a real run of the demo and put here with it.
RECORDED = {"docs/demo.svg"}
LONGEST = 120


def anchors(page: Path) -> set[str]:
    """As GitHub makes them: lower case, spaces to dashes, no punctuation."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", h.replace("`", "").lower()).replace(" ", "-") for h in found}


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if str(there.relative_to(ROOT)) in RECORDED:
            continue
        assert there.exists(), f"{target}: no such file"
        if anchor:
            assert anchor in anchors(there), f"{target}: no such heading"


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_named_in_the_text_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:qmodd|drivers|calibration|sim|configs|tests|docs|benchmarks)/[\w./-]+)`", page.read_text()
    )
    missing = [n for n in named if not (ROOT / n).exists()]
    assert not missing


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_lines_are_not_too_long(page: Path) -> None:
    outside_code = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M)
    assert [line for line in outside_code.splitlines() if len(line) > LONGEST and not line.startswith("|")] == []
