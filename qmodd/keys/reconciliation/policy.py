"""Which mode the next block is corrected in, and which QBER its code is chosen for. Alice decides, block by block, and
says so with the syndromes; both are functions of what she has measured, none of the block's own bits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

from qmodd.keys.reconciliation.blocks import Mode, Plan


class Setting(StrEnum):
    """`keys.reconciliation` of the configuration."""

    AUTO = "auto"
    THROUGHPUT = "throughput"
    EFFICIENCY = "efficiency"


# `auto` goes over to efficiency where that is so much faster than sifting, and stays while it is a little faster: what
# is waited for must not grow, and two modes must not alternate.
_ENTER, _STAY = 1.5, 1.2
# A rate that was too low is believed a little less after every block, so that it is tried again after some thirty.
_FORGIVE = 1.01
_WEIGHT = 0.3


@dataclass
class ModePolicy:
    """Rates are bits of key material in a second: sifted, and corrected in efficiency mode (waiting, decoding and round
    trips together, as Alice sees them); None before anything was measured."""

    setting: Setting = Setting.AUTO
    sifted: float | None = None
    corrected: float | None = None
    mode: Mode = Mode.THROUGHPUT

    def choose(self, known: bool) -> Mode:
        """`known`: the QBER was measured in a block before. A guess is left to short frames: a long one that is far off
        needs as much help as the whole block."""
        self.mode = Mode.EFFICIENCY if known and self._wanted() else Mode.THROUGHPUT
        return self.mode

    def _wanted(self) -> bool:
        if self.setting is not Setting.AUTO:
            return self.setting is Setting.EFFICIENCY
        if self.sifted is None or self.corrected is None:
            return True
        return self.corrected >= self.sifted * (_STAY if self.mode is Mode.EFFICIENCY else _ENTER)

    def saw_sifted(self, bits: int, seconds: float) -> None:
        if seconds > 0.0:
            self.sifted = _towards(self.sifted, bits / seconds)

    def saw_corrected(self, plan: Plan, seconds: float) -> None:
        """A block was corrected by this plan."""
        if plan.mode is Mode.EFFICIENCY and seconds > 0.0:
            self.corrected = _towards(self.corrected, plan.n_bits / seconds)
        elif self.corrected is not None:
            self.corrected *= _FORGIVE


def _towards(old: float | None, new: float) -> float:
    return new if old is None else old + _WEIGHT * (new - old)


@dataclass
class ExpectedQber:
    """The QBER to be expected in the next block: a running mean of the blocks before, and what it was wrong by beyond
    chance on top. A jump is followed at once."""

    mean: float | None = None
    # Mean square of the errors of the expectation, beyond those of counting.
    drift: float = 0.0

    @property
    def value(self) -> float | None:
        return None if self.mean is None else self.mean + sqrt(self.drift)

    def learn(self, qber: float, n_bits: int) -> None:
        """A block of `n_bits` had this share of errors."""
        if self.mean is None:
            self.mean = qber
            return
        chance = max(qber, 1.0 / n_bits) / n_bits * (1.0 + _WEIGHT)
        square = (qber - self.mean) ** 2
        self.drift += _WEIGHT * (max(0.0, square - chance) - self.drift)
        if square > 16.0 * chance:
            self.mean, self.drift = qber, min(self.drift, chance)
        else:
            self.mean += _WEIGHT * (qber - self.mean)
