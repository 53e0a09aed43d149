"""Telling systemd how the daemon is (sd_notify over a datagram socket, man sd_notify(3)), its watchdog included.

systemd's watchdog is the outermost: it is fed only while every loop has checked in and the operator's task lives, so a
core that runs but no longer does its work is started anew. Without NOTIFY_SOCKET everything here does nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

# The share of systemd's deadline after which it is fed again; man sd_watchdog_enabled(3) advises a half.
FEED_SHARE = 0.4
STATUS_BYTES = 400


class Notifier:
    """Datagrams to the socket of an address as in NOTIFY_SOCKET: a path, or @name in the abstract namespace."""

    def __init__(self, address: str | None) -> None:
        self._address: str | bytes | None = None
        self._socket: socket.socket | None = None
        self.lost = 0
        if not address:
            return
        if address[0] not in "/@":
            raise ValueError(f"NOTIFY_SOCKET = {address!r}: neither a path nor an abstract name")
        self._address = b"\0" + os.fsencode(address[1:]) if address[0] == "@" else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Notifier:
        return cls(environ.get("NOTIFY_SOCKET"))

    @property
    def active(self) -> bool:
        return self._socket is not None

    def ready(self) -> None:
        """Started: what waits for this unit may go on."""
        self.send("READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        line = " ".join(text.split()).encode()[:STATUS_BYTES].decode(errors="ignore")
        self.send(f"STATUS={line}")

    def watchdog(self) -> None:
        self.send("WATCHDOG=1")

    def stopping(self) -> None:
        self.send("STOPPING=1")

    def extend_timeout(self, seconds: float) -> None:
        """The present start or stop needs this much longer, from now."""
        self.send(f"EXTEND_TIMEOUT_USEC={round(1e6 * seconds)}")

    def send(self, message: str) -> None:
        """Never blocks and never raises: a system manager that does not listen must not stop a module. Such a message
        is counted in `lost`."""
        if self._socket is None or self._address is None:
            return
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError:
            self.lost += 1

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def watchdog_period(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds within which systemd wants to hear of this process; None when it does not watch it.

    Raises ValueError for a WATCHDOG_USEC that is no positive number.
    """
    usec = environ.get("WATCHDOG_USEC")
    if not usec or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    if not usec.isdecimal() or int(usec) <= 0:
        raise ValueError(f"WATCHDOG_USEC = {usec!r} is no positive number of microseconds")
    return int(usec) / 1e6


@dataclass
class Supervision:
    """Feeds systemd's watchdog while `healthy` gives no reason against it, and keeps the status line.

    `healthy` returns None, or why the watchdog must starve. `status` is the line for `systemctl status`.
    """

    notifier: Notifier
    period_s: float | None
    healthy: Callable[[], str | None]
    status: Callable[[], str]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    starving: str | None = None

    async def run(self) -> None:
        """Until cancelled. READY is said at once: the daemon answers requests from its first moment."""
        self.notifier.ready()
        told = ""
        while True:
            self.starving = self.healthy()
            if self.starving is None:
                self.notifier.watchdog()
            text = self.status() if self.starving is None else f"watchdog not fed: {self.starving}"
            if text != told:
                told = text
                self.notifier.status(text)
            await self.sleep(FEED_SHARE * self.period_s if self.period_s else 1.0)

    async def around(self, work: Callable[[], Awaitable[None]], stop_s: float) -> None:
        """`work` until it ends or is cancelled, with systemd told how it is: ready, alive, stopping. A stop may take
        `stop_s`. Closes the notifier."""
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self.run(), name="systemd")
                try:
                    await work()
                finally:
                    watch.cancel()
                    self.notifier.stopping()
                    self.notifier.extend_timeout(stop_s)
        finally:
            self.notifier.close()
