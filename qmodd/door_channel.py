"""The service channel as core sees it, between `qmodd.channel.MessageChannel` and the frames of the door."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from qmodd.channel import ChannelDown
from qmodd.door_frames import (
    CHANNEL_WINDOW_BYTES,
    MAX_MESSAGE_BYTES,
    ChannelCredit,
    ChannelData,
    PeerState,
    ProtocolError,
)

# A message counts at least this much against the window, so that a flood of empty ones is bounded, too.
MESSAGE_OVERHEAD_BYTES = 64


def cost(message: bytes) -> int:
    """Bytes that a message takes of the window."""
    return len(message) + MESSAGE_OVERHEAD_BYTES


class DoorChannel:
    """Whole messages to and from the peer; credit in bytes both ways, so that a slow side stops the other one.

    A connection that ended is told exactly once by ChannelDown to whoever sends or receives; `wait_connected` takes up
    the next one.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._number = 0
        self._taken_up = 0
        self._link: int | None = None
        self._why = "uplink is not connected"
        self._changed = asyncio.Event()
        self._arrived: deque[bytes] = deque()
        self._received_open = 0
        self._sent_open = 0
        self.outgoing: deque[ChannelData | ChannelCredit] = deque()

    # what core uses

    @property
    def connected(self) -> bool:
        return self._link is not None

    async def wait_connected(self) -> int:
        while self._link is None:
            await self._changed.wait()
        self._taken_up = self._number
        return self._number

    async def send(self, message: bytes) -> None:
        """Raises ChannelDown, ValueError when the message is over `MAX_MESSAGE_BYTES`."""
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(f"message of {len(message)} bytes; at most {MAX_MESSAGE_BYTES}")
        link = self._current()
        while self._sent_open >= CHANNEL_WINDOW_BYTES:
            await self._wait(link)
        self._sent_open += cost(message)
        self.outgoing.append(ChannelData(link=link, data=message))
        self._wake()

    async def receive(self) -> bytes:
        link = self._current()
        while not self._arrived:
            await self._wait(link)
        message = self._arrived.popleft()
        self._received_open -= cost(message)
        self.outgoing.append(ChannelCredit(link=link, taken=cost(message)))
        self._wake()
        return message

    # what the door uses

    def peer(self, state: PeerState) -> None:
        self.down(state.why or "the peer's uplink is not connected")
        if state.up:
            self._link = state.link
            self._number += 1
            self._notify()

    def down(self, why: str) -> None:
        self._why = why
        if self._link is not None:
            self._link = None
            self._arrived.clear()
            self.outgoing.clear()
            self._received_open = self._sent_open = 0
            self._notify()

    def data(self, frame: ChannelData) -> None:
        """Raises ProtocolError when more arrives than was granted."""
        if frame.link != self._link:
            return  # was under way when the connection ended
        if self._received_open >= CHANNEL_WINDOW_BYTES:
            raise ProtocolError("more service-channel bytes than were granted")
        self._received_open += cost(frame.data)
        self._arrived.append(frame.data)
        self._notify()

    def credit(self, frame: ChannelCredit) -> None:
        """Raises ProtocolError when more is given back than was sent."""
        if frame.link != self._link:
            return
        if frame.taken > self._sent_open:
            raise ProtocolError("credit for more service-channel bytes than were sent")
        self._sent_open -= frame.taken
        self._notify()

    def _current(self) -> int:
        if self._link is None:
            raise ChannelDown(self._why)
        if self._taken_up != self._number:
            raise ChannelDown("the connection ended and a new one was made")
        return self._link

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait(self, link: int) -> None:
        """For a change; raises ChannelDown when the connection that the caller began with is not the present one."""
        number = self._number
        await self._changed.wait()
        if self._current() != link or self._number != number:
            raise ChannelDown("the connection ended and a new one was made")
