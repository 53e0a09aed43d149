"""Layout of the time tagger's binary blocks and what they mean (reference pair B2).

`Stream` is pure: bytes of one block in, `TagBlock` out; between blocks it remembers what a gap can only be told from.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drivers.errors import BusFault
from drivers.roles import TagBlock

HEADER = struct.Struct("<4sHHQqqIIII")
"""'QTG1', header length, flags, sequence, from ps, to ps, records, lost since start, gate ppm, CRC-32 of the 44 bytes
before it and the records."""
OVERFLOW, UNLOCKED, GATED, MORE = 1, 2, 4, 8
CLICK, ERROR, OVERFLOW_BEGIN, OVERFLOW_END, MISSED, MARKER = range(6)
TIME_BITS = 54
TIME_MASK = (1 << TIME_BITS) - 1
EARLY_PS = 1 << 20
"""A click may be dated before the start of its block by detector jitter; a block spans far less than 2^54 ps."""
CHANNELS = 3


@dataclass(frozen=True)
class RawBlock:
    flags: int
    sequence: int
    from_ps: int
    to_ps: int
    lost: int
    gate_ppm: int
    records: npt.NDArray[np.uint64]


def unpack_tags(data: bytes, name: str) -> RawBlock:
    """Raises BusFault when the block is not whole."""
    if len(data) < HEADER.size:
        raise BusFault(f"{name}: tag block of {len(data)} bytes")
    magic, length, flags, sequence, from_ps, to_ps, count, lost, ppm, crc = HEADER.unpack_from(data)
    if magic != b"QTG1" or length != HEADER.size or len(data) != HEADER.size + 8 * count:
        raise BusFault(f"{name}: not a tag block: {magic!r}, {length}, {count} records in {len(data)} bytes")
    if zlib.crc32(memoryview(data)[HEADER.size :], zlib.crc32(data[: HEADER.size - 4])) != crc:
        raise BusFault(f"{name}: wrong CRC-32 in a tag block of {count} records")
    records = np.frombuffer(data, "<u8", count, HEADER.size)
    return RawBlock(flags, sequence, from_ps, to_ps, lost, ppm, records)


class Stream:
    """The blocks of one run, in the order in which they were read."""

    def __init__(self) -> None:
        self._next_sequence = 0
        self._upto_ps = 0
        self._overflow_from: int | None = None

    def take(self, raw: RawBlock) -> TagBlock:
        """Sort a block's records into clicks and losses.

        A block that is missing before it (lost, or thrown away for its CRC) is a loss from the end of the one before.
        """
        lost: list[tuple[int, int]] = []
        from_ps = min(self._upto_ps, raw.from_ps)
        if raw.sequence != self._next_sequence or raw.from_ps != self._upto_ps:
            lost.append((from_ps, raw.from_ps))
            # An overflow that was open has its end in what is missing, or goes on: then it says so again.
            self._overflow_from = None
        kind = (raw.records >> np.uint64(60)).astype(np.uint8)
        events = np.flatnonzero(kind)
        unlocked = bool(raw.flags & UNLOCKED) or bool(np.any(kind[events] == ERROR))
        lost += self._overflows(raw, kind[events], unwrap(raw.records[events], raw.from_ps))
        clicks = raw.records if not len(events) else raw.records[kind == CLICK]
        t, channel = _clicks(clicks, raw.from_ps)
        self._next_sequence = raw.sequence + 1
        self._upto_ps = raw.to_ps
        return TagBlock(
            t=t,
            channel=channel,
            from_ps=from_ps,
            to_ps=raw.to_ps,
            sequence=raw.sequence,
            gap=bool(lost),
            lost_ps=tuple(lost),
            reference_unlocked=unlocked,
            gate_ppm=raw.gate_ppm,
            more=bool(raw.flags & MORE),
        )

    def _overflows(
        self, raw: RawBlock, kinds: npt.NDArray[np.uint8], times: npt.NDArray[np.int64]
    ) -> list[tuple[int, int]]:
        """Intervals from 'begin' to 'end'; one that is open at the end of the block goes on in the next."""
        lost: list[tuple[int, int]] = []
        began = raw.from_ps if self._overflow_from is not None else None
        for kind, t in zip(kinds.tolist(), times.tolist(), strict=True):
            if kind == OVERFLOW_BEGIN and began is None:
                began = t
            elif kind == OVERFLOW_END:
                lost.append((raw.from_ps if began is None else began, t))
                began = None
        if began is not None:
            lost.append((began, raw.to_ps))
        elif not lost and (raw.flags & OVERFLOW or MISSED in kinds):
            # Clicks are missing and nothing says when.
            lost.append((raw.from_ps, raw.to_ps))
        self._overflow_from = began
        return lost


def unwrap(records: npt.NDArray[np.uint64], from_ps: int) -> npt.NDArray[np.int64]:
    """54-bit times to int64 ps, the ones nearest after `from_ps` - 2^20 ps."""
    base = from_ps - EARLY_PS
    low = (records & np.uint64(TIME_MASK)).astype(np.int64)
    return base + ((low - base) & TIME_MASK)


def _clicks(records: npt.NDArray[np.uint64], from_ps: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """(times, channels), sorted, channels that are not detectors left out."""
    t = unwrap(records, from_ps)
    channel = ((records >> np.uint64(TIME_BITS)) & np.uint64(15)).astype(np.uint8)
    if len(channel) and channel.max() >= CHANNELS:
        keep = channel < CHANNELS
        t, channel = t[keep], channel[keep]
    if len(t) > 1 and np.any(t[1:] < t[:-1]):
        order = np.argsort(t, kind="stable")
        t, channel = t[order], channel[order]
    return t, channel
