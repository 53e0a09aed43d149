"""The service channel as core sees it: whole messages to and from the peer module, carried by uplink.

What is carried is not trusted: `qmodd.keys.authentication` decides what is believed.
"""

from __future__ import annotations

from typing import Protocol


class ChannelDown(Exception):
    """The peer cannot be reached now; the message says which hop is missing."""


class MessageChannel(Protocol):
    @property
    def connected(self) -> bool: ...

    async def wait_connected(self) -> int:
        """Returns when the far end is reachable; the number grows with every new connection."""
        ...

    async def send(self, message: bytes) -> None:
        """Raises ChannelDown. Waits while the far side is slow (back-pressure)."""
        ...

    async def receive(self) -> bytes:
        """Next message in order; raises ChannelDown when the connection it belonged to ended."""
        ...
