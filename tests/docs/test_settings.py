"""docs/reference/settings.md is what the models and the table of settings say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qmodd.settings.catalogue import CATALOGUE, UNLISTED
from qmodd.settings.tree import Leaf, tree
from tests.docs.pages import DOCS

PAGE = DOCS / "reference" / "settings.md"
OUTDATED = "`python -m tests.docs.refresh` writes docs/reference/settings.md anew"
HEAD = """\
# Settings

What `qmodctl get`, `set` and `undo` know ([how-to](../how-to/change-a-setting.md)); retained on `settings/<path>` as
[Setting](topics.md#setting), asked for on `set/<path>`. Meanings in full are in [configuration.md](configuration.md),
whose values hold as long as nothing is set. This page is written by `python -m tests.docs.refresh`.

| a change counts | |
|---|---|
| `now` | at once |
| `block`, `run` | for blocks closed, runs begun from then on |
| `session` | when the module next comes up from dark: `safe`, then `start` |
| `restart` | when core is next started |
| `file` | it is in the configuration file only |

Limits of a safety setting are narrowed to the side of the file's value that is named: it can be made stricter only.
"""


def page() -> str:
    leaves = {**tree("alice"), **tree("bob")}
    sections = dict.fromkeys(leaf.section for leaf in leaves.values())
    return HEAD + "".join(line for name in sections for line in _section(name, leaves.values()))


def _section(name: str, leaves: Iterable[Leaf]) -> Iterator[str]:
    yield f"\n## `{name}`\n\n| path | allowed | unit | counts | who | module | what |\n|---|---|---|---|---|---|---|\n"
    for leaf in leaves:
        if leaf.section == name:
            yield f"| {' | '.join(_row(leaf))} |\n"


def _row(leaf: Leaf) -> list[str]:
    side = f"; {leaf.safe} than the file's only" if leaf.safe else ""
    return [
        f"`{leaf.path}`",
        _allowed(leaf),
        leaf.unit,
        f"`{leaf.applies}`",
        ", ".join(leaf.roles) or "-",
        CATALOGUE.get(leaf.path, UNLISTED).only or "both",
        leaf.description + side,
    ]


def _allowed(leaf: Leaf) -> str:
    if leaf.kind == "choice":
        return ", ".join(f"`{choice}`" for choice in leaf.choices)
    if leaf.kind == "boolean":
        return "true or false"
    return leaf.allowed(leaf.low, leaf.high)


def test_the_page_is_what_the_models_say() -> None:
    assert PAGE.read_text() == page(), OUTDATED


def test_every_way_to_apply_is_explained() -> None:
    for leaf in {**tree("alice"), **tree("bob")}.values():
        assert f"`{leaf.applies}`" in HEAD
