"""A setting as it is told: the message of one leaf. Pure."""

from __future__ import annotations

from qmodd.messages import Setting
from qmodd.settings.overrides import Kept
from qmodd.settings.tree import Leaf, Value


def message(leaf: Leaf, file: Value, value: Value, pending: Value | None, kept: Kept, ignored: str) -> Setting:
    """`file`: what the configuration file says; `value`: what is in force; `pending`: what waits; `ignored`: why what
    was set is not in force."""
    low, high = leaf.limits(file)
    return Setting(
        path=leaf.path,
        value=value,
        kind=leaf.kind,
        unit=leaf.unit,
        low=low,
        high=high,
        above=leaf.above,
        below=leaf.below,
        choices=list(leaf.choices),
        default=file,
        origin="set" if kept.now is not None and not ignored else "file",
        applies=leaf.applies,
        roles=list(leaf.roles),
        safe_side=leaf.safe,
        pending=pending,
        set_by=kept.now.by if kept.now else "",
        set_at=kept.now.at if kept.now else "",
        before=_before(kept, file),
        note=_note(file, kept, ignored)[:480],
        description=leaf.description,
    )


def _before(kept: Kept, file: Value) -> Value | None:
    if not kept.before:
        return None
    last = kept.before[-1]
    return file if last is None else last.value


def _note(file: Value, kept: Kept, ignored: str) -> str:
    notes = []
    if kept.now is not None and ignored:
        notes.append(f"{kept.now.value} was set and is not in force: {ignored}")
    if kept.now is not None and kept.now.file != file:
        notes.append(f"the file said {kept.now.file} when this was set, and says {file} now")
    return "; ".join(notes)
