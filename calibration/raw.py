"""Raw readings of calibrations, kept beside their records under the readings' own digest.

A file's name is the SHA-256 that the record carries (`record.digest`), so that what was fitted can be proved and drawn
later. Files are written whole and renamed: a power cut leaves the old state.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.record import digest

Array = npt.NDArray[np.float64]


class RawStore:
    """`directory` None keeps the readings in memory (tests, simulated time).

    Of more than `keep` readings the oldest go, except those that `needed` names: the active records' own.
    """

    def __init__(
        self,
        directory: Path | None = None,
        keep: int = 2000,
        needed: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self._directory = directory
        self._keep = keep
        self.needed = needed
        self._memory: dict[str, dict[str, Array]] = {}

    def exchange(self, other: RawStore) -> None:
        """Trade all readings with another store (another module is in); `needed` stays."""
        self._directory, other._directory = other._directory, self._directory
        self._memory, other._memory = other._memory, self._memory

    def put(self, raw: Mapping[str, Any]) -> str:
        """Keep the readings; returns their digest."""
        arrays = {name: np.atleast_1d(np.asarray(values, dtype=np.float64)) for name, values in raw.items()}
        name = digest(raw)
        if self._directory is None:
            self._memory[name] = arrays
            for old in self._surplus(list(self._memory), name):
                del self._memory[old]
            return name
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{name}.json"
        if not path.exists():
            whole = path.with_suffix(".tmp")
            with open(whole, "w", encoding="ascii") as f:
                json.dump({k: {"shape": v.shape, "data": v.ravel().tolist()} for k, v in arrays.items()}, f)
                f.flush()
                os.fsync(f.fileno())
            whole.replace(path)
            self._thin(name)
        return name

    def get(self, name: str) -> dict[str, Array] | None:
        """The readings behind a digest; None when they are not kept (any more) or do not have that digest."""
        if self._directory is None:
            return self._memory.get(name)
        try:
            text = (self._directory / f"{name}.json").read_text(encoding="ascii")
            found = {
                k: np.asarray(v["data"], dtype=np.float64).reshape(v["shape"]) for k, v in json.loads(text).items()
            }
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if digest(found) == name else None

    def _thin(self, newest: str) -> None:
        assert self._directory is not None
        times = {p.stem: p.stat().st_mtime for p in self._directory.glob("*.json")}
        for old in self._surplus(sorted(times, key=lambda name: times[name]), newest):
            (self._directory / f"{old}.json").unlink(missing_ok=True)

    def _surplus(self, oldest_first: list[str], newest: str) -> list[str]:
        surplus = len(oldest_first) - self._keep
        if surplus <= 0:
            return []
        needed = {newest, *self.needed()}
        return [name for name in oldest_first if name not in needed][:surplus]
