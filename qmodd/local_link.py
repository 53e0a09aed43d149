"""`qmodctl --local`: core's local socket with the face of a broker connection, so that everything works on either."""

from __future__ import annotations

import asyncio
import tomllib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from qmodd.door_frames import Answer, Frame, Hello, Inbound, Publish, Telemetry
from qmodd.local_door import FILE
from qmodd.messages import ROOT
from qmodd.uplink.client import DoorClosed, DoorSession, open_door
from qmodd.uplink.mqtt_link import Arrived, LinkDown


def socket_of(path: Path) -> Path:
    """The socket itself, or that of a state directory or of a module's configuration file. Raises LinkDown."""
    if path.is_dir():
        return path / FILE
    if path.suffix == ".toml":
        try:
            state_dir = tomllib.loads(path.read_text())["module"]["state_dir"]
        except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as e:
            raise LinkDown(f"{path}: no module.state_dir can be read there: {e}") from None
        return path.parent / str(state_dir) / FILE
    return path


class LocalLink:
    """One module's topics as a broker would give them. One consumer of messages."""

    def __init__(self, session: DoorSession) -> None:
        self._session = session
        self._retained: dict[str, bytes] = {}
        self._filters: list[list[str]] = []
        self._arrived: deque[Arrived] = deque()
        self._changed = asyncio.Event()
        self._lost = ""

    async def subscribe(self, *filters: str) -> None:
        """What is retained comes at once, as far as it is known; the rest as it comes."""
        fresh = [f.split("/") for f in filters]
        self._filters += fresh
        for topic, payload in self._retained.items():
            if any(_matches(f, topic) for f in fresh):
                self._put(topic, payload, True, None)

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expires_in_s: int | None = None,
        correlation: bytes | None = None,
        response_topic: str | None = None,
    ) -> int:
        """Always 0: core is there. Raises LinkDown."""
        inbound = Inbound(topic=topic, payload=payload, response_topic=response_topic, correlation=correlation)
        try:
            await self._session.send(inbound)
        except DoorClosed as e:
            raise LinkDown(str(e)) from None
        return 0

    async def next_message(self) -> Arrived:
        """Raises LinkDown when the connection ends."""
        while not self._arrived:
            if self._lost:
                raise LinkDown(self._lost)
            self._changed.clear()
            await self._changed.wait()
        return self._arrived.popleft()

    async def read(self) -> None:
        """Until the connection ends."""
        try:
            async for frame in self._session.frames():
                self._take(frame)
        except DoorClosed as e:
            self._lost = f"the local door: {e}"
            self._changed.set()

    def _take(self, frame: Frame) -> None:
        root = f"{ROOT}/{self._session.module}"
        match frame:
            case Hello():
                self._heard(f"{root}/alive", frame.alive, True, None)
            case Publish():
                self._heard(f"{root}/{frame.suffix}", frame.payload, frame.retain, None)
            case Telemetry():
                self._heard(f"{root}/telemetry/{frame.group}", frame.payload, False, None)
            case Answer():
                self._heard(f"{root}/reply/{frame.client}", frame.payload, False, frame.correlation)
            case _:
                return

    def _heard(self, topic: str, payload: bytes, retain: bool, correlation: bytes | None) -> None:
        if retain:
            self._retained[topic] = payload
        if any(_matches(f, topic) for f in self._filters):
            self._put(topic, payload, retain, correlation)

    def _put(self, topic: str, payload: bytes, retain: bool, correlation: bytes | None) -> None:
        self._arrived.append(Arrived(topic, payload, retain, False, None, correlation))
        self._changed.set()


def _matches(wanted: list[str], topic: str) -> bool:
    """MQTT's rules for `+`, which stands for one level, and a last `#`, for any number of them."""
    levels = topic.split("/")
    if wanted[-1] == "#":
        wanted, levels = wanted[:-1], levels[: len(wanted) - 1]
    return len(levels) == len(wanted) and all(w in ("+", have) for w, have in zip(wanted, levels, strict=True))


@asynccontextmanager
async def open_local(path: Path) -> AsyncIterator[LocalLink]:
    """Connect to core's local socket. Raises LinkDown, also when core is not running."""
    where = socket_of(path)
    try:
        async with open_door(where) as session:
            link = LocalLink(session)
            reading = asyncio.ensure_future(link.read())
            try:
                yield link
            finally:
                reading.cancel()
                await asyncio.wait({reading})
    except DoorClosed as e:
        raise LinkDown(f"no core behind the local door: {e}") from None
