"""Counts of a block and of a batch: what estimation, the control loops and the peer are told.

Index 0 of every per-intensity tuple is the signal, index 1 the decoy (index 2 a second decoy where there is one).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

_PAIR = (0, 0)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


@dataclass(frozen=True)
class BlockCounts:
    """Sifted detections n and errors m in each basis per intensity, and what the acceptance rule met on the way.

    `m_z` exists only after error correction and is zero before it.
    """

    n_z: tuple[int, ...]
    m_z: tuple[int, ...]
    n_x: tuple[int, ...]
    m_x: tuple[int, ...]
    live_slots: int = 0
    cross: int = 0
    double_x: int = 0
    veto: int = 0
    out_of_gate: int = 0

    @property
    def total_z(self) -> int:
        return sum(self.n_z)

    @property
    def total_x(self) -> int:
        return sum(self.n_x)

    @property
    def qber_z(self) -> float:
        return _ratio(sum(self.m_z), self.total_z)

    @property
    def qber_x(self) -> float:
        return _ratio(sum(self.m_x), self.total_x)

    def check(self) -> None:
        """Raises ValueError if the counts cannot be those of any block."""
        if not 2 <= len(self.n_z) == len(self.m_z) == len(self.n_x) == len(self.m_x) <= 3:
            raise ValueError("counts of different numbers of intensities")
        for basis, n, m in (("Z", self.n_z, self.m_z), ("X", self.n_x, self.m_x)):
            for intensity, (detections, errors) in enumerate(zip(n, m, strict=True)):
                if not 0 <= errors <= detections:
                    raise ValueError(f"{errors} errors in {detections} detections, {basis}, intensity {intensity}")
        if min(self.live_slots, self.cross, self.double_x, self.veto, self.out_of_gate) < 0:
            raise ValueError("negative counter")

    def with_z_errors(self, m_z: tuple[int, ...]) -> BlockCounts:
        """The counts after error correction."""
        return replace(self, m_z=m_z)

    def __add__(self, other: BlockCounts) -> BlockCounts:
        return _add(self, other)


@dataclass(frozen=True)
class BatchReport:
    """One batch (about 100 ms) as Bob tallies it after Alice's BASIS message (reference pair B4, message 3).

    State X0 is Alice's X bit 0, X1 her bit 1; `n_x0` counts, `e_x0` errors of it per intensity. `z_early`, `z_late`
    are accepted Z clicks by Bob's bin of slots that did not match, so that no key bit is among them; `satellites` are
    (DX0 bin 0, DX0 bin 2, DX1 bin 0, DX1 bin 2), of slots that are not accepted.
    """

    first_slot: int
    end_slot: int
    live_slots: int
    cross: int = 0
    double_x: int = 0
    veto: int = 0
    out_of_gate: int = 0
    z_early: int = 0
    z_late: int = 0
    n_z: tuple[int, int] = _PAIR
    n_x0: tuple[int, int] = _PAIR
    e_x0: tuple[int, int] = _PAIR
    n_x1: tuple[int, int] = _PAIR
    e_x1: tuple[int, int] = _PAIR
    satellites: tuple[int, int, int, int] = (0, 0, 0, 0)

    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QQQ20I")

    @property
    def n_x(self) -> tuple[int, int]:
        return self.n_x0[0] + self.n_x1[0], self.n_x0[1] + self.n_x1[1]

    @property
    def m_x(self) -> tuple[int, int]:
        return self.e_x0[0] + self.e_x1[0], self.e_x0[1] + self.e_x1[1]

    def gain_z(self, intensity: int) -> float:
        """Sifted Z detections of an intensity per live slot."""
        return _ratio(self.n_z[intensity], self.live_slots)

    def gain_x(self, intensity: int) -> float:
        """Sifted X detections of an intensity per live slot."""
        return _ratio(self.n_x[intensity], self.live_slots)

    def check(self) -> None:
        """Raises ValueError if the counts contradict each other."""
        self.block_counts().check()
        for n, e in ((self.n_x0, self.e_x0), (self.n_x1, self.e_x1)):
            if any(b > a for a, b in zip(n, e, strict=True)):
                raise ValueError("more errors than detections of an X state")
        if not 0 <= self.first_slot <= self.end_slot or self.live_slots > self.end_slot - self.first_slot:
            raise ValueError("slot range and live slots contradict each other")

    def block_counts(self) -> BlockCounts:
        """The part that counts towards a block, Z errors still unknown."""
        return BlockCounts(
            n_z=self.n_z,
            m_z=_PAIR,
            n_x=self.n_x,
            m_x=self.m_x,
            live_slots=self.live_slots,
            cross=self.cross,
            double_x=self.double_x,
            veto=self.veto,
            out_of_gate=self.out_of_gate,
        )

    def to_bytes(self) -> bytes:
        """The payload of TALLY, 104 bytes. Raises ValueError if a count does not fit."""
        flat: list[int] = []
        for f in fields(self):
            value = getattr(self, f.name)
            flat.extend(value if isinstance(value, tuple) else (value,))
        try:
            return self._LAYOUT.pack(*flat)
        except struct.error as e:
            raise ValueError(f"a count does not fit: {e}") from e

    @classmethod
    def from_bytes(cls, data: bytes) -> BatchReport:
        """Raises ValueError on anything that `to_bytes` cannot have written of a possible batch."""
        if len(data) != cls._LAYOUT.size:
            raise ValueError(f"tally of {len(data)} bytes, expected {cls._LAYOUT.size}")
        v = cls._LAYOUT.unpack(data)
        report = cls(
            *(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]),
            n_z=(v[9], v[10]),
            n_x0=(v[11], v[12]),
            e_x0=(v[13], v[14]),
            n_x1=(v[15], v[16]),
            e_x1=(v[17], v[18]),
            satellites=(v[19], v[20], v[21], v[22]),
        )
        report.check()
        return report

    def __add__(self, other: BatchReport) -> BatchReport:
        """Sum over batches; the slot range becomes the span of both (what lies between counts as not live)."""
        total = _add(self, other)
        return replace(
            total, first_slot=min(self.first_slot, other.first_slot), end_slot=max(self.end_slot, other.end_slot)
        )


Counts = TypeVar("Counts", BlockCounts, BatchReport)


def _add(a: Counts, b: Counts) -> Counts:
    """Field by field; tuples element by element."""
    total: dict[str, Any] = {}
    for f in fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if isinstance(x, tuple):
            total[f.name] = tuple(p + q for p, q in zip(x, y, strict=True))
        else:
            total[f.name] = x + y
    return type(a)(**total)
