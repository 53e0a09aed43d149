"""What was set over the configuration file, and what it was before: pure, and as JSON on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from qmodd.settings.tree import Value

FILE = "settings.json"
VERSION = 1
# Steps that `undo` can go back, a setting.
HISTORY = 16


class Damaged(Exception):
    """The file cannot be used; says why."""


@dataclass(frozen=True)
class Override:
    """A value that was set. `file`: what the configuration file said then; `at`: UTC, ISO 8601."""

    value: Value
    by: str
    at: str
    file: Value


@dataclass(frozen=True)
class Kept:
    """One setting: what is set now (None: the file's value), and what was before, the oldest first."""

    now: Override | None = None
    before: tuple[Override | None, ...] = ()


@dataclass(frozen=True)
class Overrides:
    """By path. Settings that this version does not know stay as they are, for a later one."""

    kept: Mapping[str, Kept] = field(default_factory=dict)

    def of(self, path: str) -> Kept:
        return self.kept.get(path, Kept())

    def set(self, path: str, override: Override | None) -> Overrides:
        """None: the file's value again. What is now becomes what `undo` returns to."""
        was = self.of(path)
        return self._with(path, Kept(override, (*was.before, was.now)[-HISTORY:]))

    def undo(self, path: str) -> Overrides:
        """Raises LookupError when nothing was set before."""
        was = self.of(path)
        if not was.before:
            raise LookupError(path)
        return self._with(path, Kept(was.before[-1], was.before[:-1]))

    def _with(self, path: str, kept: Kept) -> Overrides:
        rest = {p: k for p, k in self.kept.items() if p != path}
        return replace(self, kept=rest if kept == Kept() else {**rest, path: kept})

    def in_order(self) -> list[tuple[str, Override]]:
        """All that is set now, in the order in which it was."""
        found = [(path, kept.now) for path, kept in self.kept.items() if kept.now is not None]
        return sorted(found, key=lambda one: (one[1].at, one[0]))

    def dump(self) -> str:
        settings = {
            path: {"now": _plain(kept.now), "before": [_plain(b) for b in kept.before]}
            for path, kept in sorted(self.kept.items())
        }
        return json.dumps({"version": VERSION, "settings": settings}, indent=1) + "\n"

    @classmethod
    def load(cls, text: str) -> Overrides:
        """Raises Damaged."""
        try:
            raw = json.loads(text)["settings"]
            return cls({str(path): _kept(kept) for path, kept in raw.items()})
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise Damaged(f"{type(e).__name__}: {e}"[:200]) from None


def _kept(raw: Mapping[str, Any]) -> Kept:
    before = tuple(_override(b) for b in raw["before"])
    return Kept(_override(raw["now"]), before[-HISTORY:])


def _override(raw: Mapping[str, Any] | None) -> Override | None:
    if raw is None:
        return None
    return Override(_scalar(raw["value"]), str(raw["by"])[:64], str(raw["at"])[:40], _scalar(raw["file"]))


def _scalar(value: Any) -> Value:
    if not isinstance(value, bool | int | float | str):
        raise TypeError(f"{type(value).__name__} is no value")
    return value


def _plain(override: Override | None) -> dict[str, Value] | None:
    return None if override is None else dict(vars(override))
