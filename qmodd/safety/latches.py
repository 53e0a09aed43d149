"""Latches on disk: why a module stays dark over restart and power loss until a person clears it.

One file, replaced as a whole: written beside, synced, renamed, the directory synced. So it holds either what was before
or what is now, at whatever byte the process dies. A file that cannot be read counts as a latch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qmodd.durable import write_whole

FILE = "latches.json"
UNREADABLE = "latch-file"
# Characters of a cause.
LONGEST_CAUSE = 400


@dataclass(frozen=True)
class Latch:
    """`at`: UTC, ISO 8601. `readings`: names of the readings that violated. `snapshot`: what was read in the seconds
    before, the oldest first."""

    name: str
    cause: str
    at: str
    readings: tuple[str, ...] = ()
    snapshot: tuple[Mapping[str, Any], ...] = ()


@dataclass
class LatchStore:
    """Latches that keep a module dark. Raises OSError where the disk does not take one; it is in force nonetheless."""

    path: Path
    _set: dict[str, Latch] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._set = _load(self.path)

    def all(self) -> tuple[Latch, ...]:
        """In the order in which they were set."""
        return tuple(self._set.values())

    def get(self, name: str) -> Latch:
        """Raises LookupError for one that is not set."""
        if name not in self._set:
            raise LookupError(f"no latch {name!r} is set")
        return self._set[name]

    def __contains__(self, name: object) -> bool:
        return name in self._set

    def set(self, latch: Latch) -> bool:
        """On disk when this returns; False for one that is set already: the first cause stands."""
        if latch.name in self._set:
            return False
        self._set[latch.name] = latch
        self._save()
        return True

    def clear(self, name: str) -> Latch:
        """Cleared on disk when this returns; stays set when that fails. Raises LookupError, OSError."""
        latch = self.get(name)
        left = {n: held for n, held in self._set.items() if n != name}
        _store(self.path, left.values())
        self._set = left
        return latch

    def _save(self) -> None:
        _store(self.path, self._set.values())


def _load(path: Path) -> dict[str, Latch]:
    try:
        raw = json.loads(path.read_bytes())
        found = [_latch(entry) for entry in raw["latches"]]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as e:
        cause = f"{path.name} cannot be read ({type(e).__name__}): what was latched is not known"
        return {UNREADABLE: Latch(UNREADABLE, cause, "")}
    return {latch.name: latch for latch in found}


def _latch(entry: Mapping[str, Any]) -> Latch:
    snapshot = tuple(dict(row) for row in entry["snapshot"])
    return Latch(str(entry["name"]), str(entry["cause"]), str(entry["at"]), tuple(entry["readings"]), snapshot)


def _store(path: Path, latches: Any) -> None:
    """All or nothing, durable when it returns. Raises OSError."""
    body = json.dumps({"latches": [asdict(latch) for latch in latches]}, indent=1, default=str).encode()
    write_whole(path, body, 0o600)


def causes(latches: Sequence[Latch]) -> str:
    """One line for `why`; "" when nothing is latched."""
    return "; ".join(f"latched {held.at[:19]} {held.name}: {held.cause}"[:LONGEST_CAUSE] for held in latches)
