"""The service channel of the tests: it can be cut, watched and tampered with."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from qmodd.channel import ChannelDown


class Wire:
    """Both directions of the service channel. `tamper(direction, n, frame)` returns the frames to deliver instead."""

    def __init__(self) -> None:
        self.number = 1
        self.up = True
        self.queues: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
        self.moved = asyncio.Event()
        self.sent = 0
        self.tamper: Callable[[int, int, bytes], Sequence[bytes]] = lambda d, n, f: [f]
        self.record: list[tuple[int, bytes]] = []

    def cut(self) -> None:
        self.up = False
        for q in self.queues:
            q.clear()
        self.wake()

    def mend(self) -> None:
        self.up = True
        self.number += 1
        self.wake()

    def wake(self) -> None:
        self.moved.set()
        self.moved = asyncio.Event()

    def end(self, direction: int) -> WireEnd:
        return WireEnd(self, direction)


class WireEnd:
    def __init__(self, wire: Wire, direction: int) -> None:
        self._wire = wire
        self._direction = direction
        self._number = 0

    @property
    def connected(self) -> bool:
        return self._wire.up

    async def wait_connected(self) -> int:
        while not self._wire.up:
            await self._wire.moved.wait()
        self._number = self._wire.number
        return self._number

    def _check(self) -> None:
        if not self._wire.up or self._number != self._wire.number:
            raise ChannelDown("the wire was cut")

    async def send(self, message: bytes) -> None:
        self._check()
        wire = self._wire
        wire.sent += 1
        wire.record.append((self._direction, message))
        wire.queues[1 - self._direction].extend(wire.tamper(self._direction, wire.sent, message))
        self._check()
        wire.wake()

    async def receive(self) -> bytes:
        while True:
            self._check()
            if self._wire.queues[self._direction]:
                return self._wire.queues[self._direction].popleft()
            await self._wire.moved.wait()
