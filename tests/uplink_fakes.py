"""Small stand-ins shared by the tests of the network's side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from qmodd.crypto.suites import SigningKey
from qmodd.identity import Authority, Signer, issue_certificate, sign_request
from qmodd.messages import Alive, Certificate, Request, RequestBody, Role
from qmodd.randomness import SeededRandomness

MODULE = "QM-A-0001"
EPOCH = "0123456789abcdef"
START = datetime(2026, 1, 1, tzinfo=UTC)
ALIVE = Alive(state="online", epoch=EPOCH, version="0.1.0", since=START)


@dataclass
class HandClock:
    """Moves only when told."""

    t: float = 0.0
    synchronised: bool = True

    def monotonic(self) -> float:
        return self.t

    def utc(self) -> datetime:
        return START + timedelta(seconds=self.t)

    def utc_synchronised(self) -> bool:
        return self.synchronised


@dataclass
class Log:
    """Takes reports and audit events, and lets a test wait for one."""

    entries: list[tuple[str, object]] = field(default_factory=list)
    _new: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, name: str, what: object) -> None:
        self.entries.append((name, what))
        self._new.set()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.entries]

    async def until(self, name: str, count: int = 1) -> object:
        """What the count-th entry of that name says."""
        async with asyncio.timeout(10):
            while self.names.count(name) < count:
                self._new.clear()
                await self._new.wait()
        return [what for n, what in self.entries if n == name][count - 1]


async def until(true: Callable[[], bool]) -> None:
    """Let the loop run until something is true; for what has no event of its own to wait for."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0)


@asynccontextmanager
async def running(*things: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.TaskGroup]:
    """Runs coroutines beside the test and cancels them at its end; their failure fails the test."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(t) for t in things]
        try:
            yield group
        finally:
            for task in tasks:
                task.cancel()


AUTHORITY = Signer("site-authority", SigningKey.generate())
CLIENT = Signer("ann", SigningKey.generate())
TRUST = Authority(AUTHORITY.key.public)
_IDS = SeededRandomness(1)


def certificate(role: Role = "operator", client: Signer = CLIENT) -> Certificate:
    return issue_certificate(
        AUTHORITY, client.name, client.key.public, role, START - timedelta(days=1), START + timedelta(days=1)
    )


OPERATOR = certificate()


def body(command: str = "stop", **changes: object) -> RequestBody:
    fields: dict[str, object] = {
        "module": MODULE,
        "topic": f"qmodd/v1/{MODULE}/command/{command}",
        "epoch": EPOCH,
        "id": str(_IDS.uuid()),
        "issued_at": START,
        "expires_at": START + timedelta(seconds=60),
        "client": "ann",
        "arguments": {},
    }
    return RequestBody.model_validate({**fields, **changes})


def request(command: str = "stop", **changes: object) -> Request:
    return sign_request(CLIENT, OPERATOR, body(command, **changes))
