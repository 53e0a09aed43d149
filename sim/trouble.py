"""What is wrong with one emulated part at the moment: faults by kind and place. Parts ask, `sim.partfaults` tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Wrong = Mapping[tuple[str, str], float | None]
"""(kind, place) -> value of the script, None where it gives none. The place is what follows the part's name: "2"."""


def _nothing() -> None:
    return None


class Trouble:
    """One part's faults. `changed` is called when they begin, end or change, so that outputs can follow."""

    def __init__(self, changed: Callable[[], None] = _nothing) -> None:
        self._wrong: Wrong = {}
        self._changed = changed
        self._random = np.random.Generator(np.random.Philox(key=[0, 0]))

    def __bool__(self) -> bool:
        return bool(self._wrong)

    def seed(self, words: tuple[int, int]) -> None:
        """For what chance decides."""
        self._random = np.random.Generator(np.random.Philox(key=list(words)))

    def set(self, wrong: Wrong) -> None:
        """All that is wrong from now on. What is noisy changes with every call."""
        noisy = any(kind == "noisy" for kind, _ in wrong)
        if noisy or wrong != self._wrong:
            self._wrong = dict(wrong)
            self._changed()

    def has(self, kind: str, place: int | str = "") -> bool:
        return (kind, str(place)) in self._wrong

    def value(self, kind: str, place: int | str = "", *, default: float, sound: float = 0.0) -> float:
        """The fault's value, or `default` where the script gives none; `sound` without a fault."""
        if (kind, str(place)) not in self._wrong:
            return sound
        given = self._wrong[kind, str(place)]
        return default if given is None else given

    def places(self, kind: str) -> list[str]:
        """Where a kind of fault is, e.g. ["0-1"]."""
        return [place for k, place in self._wrong if k == kind]

    def noise(self, place: int | str = "", *, default: float) -> float:
        """A sample of what a noisy place adds, normal; 0 without that fault."""
        if ("noisy", str(place)) not in self._wrong:
            return 0.0
        return self.value("noisy", place, default=default) * float(self._random.standard_normal())

    def strikes(self, kind: str, place: int | str = "", *, default: float) -> bool:
        """For one occasion: true with the fault's value as its probability."""
        share = self.value(kind, place, default=default)
        return share > 0.0 and float(self._random.random()) < share

    def exchanged(self, place: int) -> int:
        """The output that a place's signal comes out at: faults of the kind swapped name two places, "0-1"."""
        for pair in self.places("swapped"):
            one, _, other = pair.partition("-")
            if str(place) in (one, other):
                return int(other) if str(place) == one else int(one)
        return place
