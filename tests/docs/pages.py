"""Reads the documentation as data: sections, tables and named code blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def pages() -> list[Path]:
    """Every Markdown page of the project."""
    return sorted([ROOT / "README.md", *DOCS.rglob("*.md")])


@dataclass(frozen=True)
class Block:
    """A fenced block: language, text, and the file name of a `<!-- file: NAME -->` line right above it, if any."""

    language: str
    text: str
    file: str | None


def sections(page: Path) -> dict[str, str]:
    """Text below each heading down to the next one of any level, by the heading's text without backticks."""
    found: dict[str, str] = {}
    heading = ""
    for line in _outside_blocks(page.read_text()):
        match = re.match(r"#+ (.*)", line)
        if match:
            heading = match[1].replace("`", "").strip()
            found[heading] = ""
        elif heading:
            found[heading] += line + "\n"
    return found


def rows(text: str) -> list[list[str]]:
    """Cells of every table row of a section, header and rule left out, backticks kept."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cut = [[c.strip().replace("\0", "|") for c in line.replace("\\|", "\0").strip("|").split("|")] for line in lines]
    rules = {i for i, cells in enumerate(cut) if all(re.fullmatch(r":?-+:?", c) for c in cells)}
    return [cells for i, cells in enumerate(cut) if i not in rules and i + 1 not in rules]


def code(text: str) -> str:
    """The text of a cell that is one piece of code."""
    match = re.fullmatch(r"`([^`]*)`", text)
    if match is None:
        raise ValueError(f"{text!r} is not one piece of code in backticks")
    return match[1]


def blocks(page: Path) -> list[Block]:
    """All fenced blocks, in order."""
    pattern = re.compile(r"(?:<!-- file: (\S+) -->\n)?```(\w*)\n(.*?)^```$", re.S | re.M)
    return [Block(m[2], m[3], m[1]) for m in pattern.finditer(page.read_text())]


def _outside_blocks(text: str) -> list[str]:
    return re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M).splitlines()
