"""Several blocks at once: a line of stations that they pass in the order in which they closed, and a mailbox for each.

Each station takes one block at a time, so the decoder works on one block while another is amplified and a third waits
for the far end: round trips of the service channel cost nothing while there is work. A block keeps its station until
the next one is free, so no block overtakes another. That matters at both ends of the line: rounds of the pool are
claimed, and blocks committed, in the same order on both sides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import IntEnum
from types import TracebackType
from typing import TypeVar

from qmodd.keys.protocol import BlockMessage

T = TypeVar("T")


class Inbox(asyncio.Queue[tuple[T, bytes]]):
    """Messages with the bytes that they came in; `waiting_bytes` are those of the ones that wait."""

    waiting_bytes = 0

    def _put(self, item: tuple[T, bytes]) -> None:
        self.waiting_bytes += len(item[1])
        super()._put(item)

    def _get(self) -> tuple[T, bytes]:
        item = super()._get()
        self.waiting_bytes -= len(item[1])
        return item


Box = Inbox[BlockMessage]


class Station(IntEnum):
    """What is done to a block, in this order."""

    OPEN = 0
    CORRECT = 1
    VERIFY = 2
    AMPLIFY = 3
    FINISH = 4


class Line:
    """All stations of one session."""

    def __init__(self) -> None:
        self._locks = [asyncio.Lock() for _ in Station]

    def visit(self) -> Visit:
        """For one block. Blocks must be started in order, each from a task of its own."""
        return Visit(self._locks)


class Visit:
    """One block's way along the line; leaving the context frees the station where it is."""

    def __init__(self, locks: Sequence[asyncio.Lock]) -> None:
        self._locks = locks
        self._at: Station | None = None
        self._since = 0.0
        # s from entering a station to entering the next one, by name; loop time.
        self.seconds: dict[str, float] = {}

    async def enter(self, station: Station) -> None:
        """Wait for the station, then free the one before. Raises RuntimeError if it is not a later one."""
        if self._at is not None and station <= self._at:
            raise RuntimeError(f"a block cannot go from {self._at.name} to {station.name}")
        await self._locks[station].acquire()
        self._leave()
        self._at, self._since = station, asyncio.get_running_loop().time()

    def _leave(self) -> None:
        if self._at is not None:
            self._locks[self._at].release()
            self.seconds[self._at.name.lower()] = round(asyncio.get_running_loop().time() - self._since, 6)
            self._at = None

    async def __aenter__(self) -> Visit:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._leave()


class Mail:
    """A box for every block in work. What comes for any other is the rest of a block that was given up, and dropped."""

    def __init__(self) -> None:
        self._boxes: dict[tuple[int, int], Box] = {}
        self._strays = 0

    def open(self, run: int, block: int) -> None:
        """From when the block is closed on: the far end may write about it before its turn has come here."""
        self._boxes.setdefault((run, block), Inbox())
        self._strays = 0

    def box(self, run: int, block: int) -> Box:
        self.open(run, block)
        return self._boxes[run, block]

    def close(self, run: int, block: int) -> None:
        self._boxes.pop((run, block), None)

    @property
    def waiting_bytes(self) -> int:
        """Of all messages that wait in boxes."""
        return sum(box.waiting_bytes for box in self._boxes.values())

    def post(self, message: BlockMessage, data: bytes) -> int:
        """How many messages wait in that box now, or have found no box since the last one was opened."""
        box = self._boxes.get((message.run, message.block))
        if box is None:
            self._strays += 1
            return self._strays
        box.put_nowait((message, data))
        return box.qsize()
