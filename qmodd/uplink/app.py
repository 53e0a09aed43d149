"""The uplink process: the network's side of a module. Keeps nothing that matters and may be killed at any time.

Three things run side by side: the door to core, the relay of the service channel (only while core is there: a channel
without a core behind it is not up), and the broker connection (which the relay does not need). `alive` is written here,
because only uplink can say that core is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from qmodd.door_frames import (
    Answer,
    BrokerState,
    ChannelCredit,
    ChannelData,
    Frame,
    Inbound,
    KeyReceipt,
    Publish,
    Published,
    Telemetry,
)
from qmodd.messages import MAX_KEY_ACK_BYTES, MAX_REQUEST_BYTES, Alive
from qmodd.randomness import Randomness
from qmodd.uplink.client import DoorClosed, DoorSession, open_door
from qmodd.uplink.mqtt_link import (
    FIRST_FAILURE_CODE,
    NO_MATCHING_SUBSCRIBERS,
    Arrived,
    Backoff,
    BrokerSettings,
    Link,
    LinkDown,
    Will,
    open_link,
)
from qmodd.uplink.relay import Relay, split_address
from qmodd.uplink.topics import Topics

TELEMETRY_KEPT = 64
ANSWERS_KEPT = 64
ANSWER_EXPIRY_S = 60
OFFLINE_WAIT_S = 1.0
DOOR_RETRY_MOST_S = 0.5

Report = Callable[[str, str], None]


class UplinkSettings(BaseModel):
    """What `qmodd uplink` needs of the configuration. Exactly one of the relay addresses, HOST:PORT."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    serial: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,31}$")]
    door: Path
    broker: BrokerSettings = BrokerSettings()
    relay_listen: str | None = None
    relay_connect: str | None = None

    @model_validator(mode="after")
    def _one_relay(self) -> Self:
        if (self.relay_listen is None) == (self.relay_connect is None):
            raise ValueError("give either relay_listen (alice) or relay_connect (bob)")
        split_address(self.relay_listen or self.relay_connect or "")
        return self


class Uplink:
    """State shared by the three tasks. `report(name, why)` gets what is worth a log line."""

    def __init__(self, settings: UplinkSettings, randomness: Randomness, report: Report) -> None:
        self.settings = settings
        self.topics = Topics(settings.serial)
        self.relay_port: int | None = None
        self._randomness = randomness
        self._report = report
        self._session: DoorSession | None = None
        self._alive: Alive | None = None
        self._changed = asyncio.Event()
        self._publishes: deque[Publish] = deque()
        self._answers: deque[Answer] = deque(maxlen=ANSWERS_KEPT)
        self._telemetry: deque[Telemetry] = deque(maxlen=TELEMETRY_KEPT)
        self._last_down = ""

    async def run(self) -> None:
        """Until cancelled. Raises OSError when the relay's address cannot be had."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._door(), name="door")
            group.create_task(self._broker(), name="broker")

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # the door

    async def _door(self) -> None:
        backoff = Backoff(self._randomness, 0.1, DOOR_RETRY_MOST_S)
        while True:
            try:
                async with open_door(self.settings.door) as session:
                    backoff.reset()
                    await self._serve_core(session)
            except* DoorClosed as e:
                self._say_down("door", str(e.exceptions[0]))
            await asyncio.sleep(backoff.next_s())

    async def _serve_core(self, session: DoorSession) -> None:
        relay = Relay(self.settings.serial, session.send)
        try:
            async with asyncio.TaskGroup() as group, aclosing(session.frames()) as frames:
                async for frame in frames:
                    if self._session is None and session.alive is not None:
                        await self._core_is_there(session)
                        group.create_task(self._relay(relay), name="relay")
                    self._from_core(frame, relay)
        finally:
            self._session = None
            self._publishes.clear()
            self._notify()

    async def _core_is_there(self, session: DoorSession) -> None:
        if session.module != self.settings.serial:
            raise DoorClosed(f"core is module {session.module!r}, this uplink is for {self.settings.serial!r}")
        self._session, self._alive = session, session.alive
        self._last_down = ""
        self._report("door.open", "")
        await session.send(BrokerState(connected=False))  # until the broker's task serves this session
        self._notify()

    def _from_core(self, frame: Frame, relay: Relay) -> None:
        match frame:
            case ChannelData():
                relay.from_core(frame)
            case ChannelCredit():
                relay.credit(frame)
            case Publish():
                self._publishes.append(frame)
            case Answer():
                self._answers.append(frame)
            case Telemetry():
                self._telemetry.append(frame)
        self._notify()

    async def _relay(self, relay: Relay) -> None:
        def listening(port: int) -> None:
            self.relay_port = port

        if self.settings.relay_listen is not None:
            await relay.listen(*split_address(self.settings.relay_listen), listening)
        else:
            await relay.connect(*split_address(self.settings.relay_connect or ""))

    # the broker

    async def _broker(self) -> None:
        backoff = Backoff(self._randomness)
        while True:
            alive = await self._known_alive()
            will = Will(self.topics.alive, alive.offline().payload())
            try:
                async with open_link(self.settings.broker, f"qmodd-{self.settings.serial}", will=will) as link:
                    backoff.reset()
                    await self._serve_broker(link, alive)
            except* LinkDown as e:
                self._say_down("broker", str(e.exceptions[0]))
            await asyncio.sleep(backoff.next_s())

    async def _known_alive(self) -> Alive:
        while self._alive is None:
            await self._changed.wait()
        return self._alive

    async def _serve_broker(self, link: Link, alive: Alive) -> None:
        """Until the link is lost (LinkDown), or core has come back and the will has to change (returns)."""
        session = self._session
        if session is not None:
            await self._serve_both(link, session, alive)
        await self._publish_alive(link, alive.offline())
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(link.watch(), name="broker watch")
            while self._session is None:
                await self._changed.wait()
            watch.cancel()

    async def _serve_both(self, link: Link, session: DoorSession, alive: Alive) -> None:
        """While core and broker are both there. Present truth first: `alive`, then what core sends."""
        try:
            await link.subscribe(*self.topics.subscriptions)
            await self._publish_alive(link, alive)
            await self._broker_is(True, session)
            await self._carry(link, session)
        except asyncio.CancelledError:  # uplink stops on purpose
            with contextlib.suppress(LinkDown):
                await self._publish_alive(link, alive.offline())
            raise
        finally:
            self._publishes.clear()  # core sends them again to whoever comes next
            await self._broker_is(False, session)

    async def _carry(self, link: Link, session: DoorSession) -> None:
        """Returns when core is gone. Raises a group of LinkDown when the broker is."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(link.watch(), name="broker watch")
                group.create_task(self._outgoing(link, session, group), name="to broker")
                group.create_task(self._incoming(link, session), name="from broker")
                while self._session is session:
                    await self._changed.wait()
                raise DoorClosed("core is gone")
        except* DoorClosed:
            pass  # the door's own task reports it

    async def _publish_alive(self, link: Link, alive: Alive) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OFFLINE_WAIT_S):
                await link.publish(self.topics.alive, alive.payload(), retain=True)

    async def _broker_is(self, up: bool, session: DoorSession) -> None:
        self._report("broker.connected" if up else "broker.left", self.settings.broker.url)
        with contextlib.suppress(DoorClosed):  # the door's own task says so
            if self._session is session:
                await session.send(BrokerState(connected=up))

    async def _outgoing(self, link: Link, session: DoorSession, group: asyncio.TaskGroup) -> None:
        """Answers first, then the outbox in the order in which core sends it, telemetry when there is nothing else."""
        while True:
            if self._answers:
                group.create_task(self._answer(link, self._answers.popleft()), name="answer")
            elif self._publishes:
                group.create_task(self._publish(link, session, self._publishes.popleft()), name="publish")
            elif self._telemetry:
                group_values = self._telemetry.popleft()
                await link.publish(self.topics.telemetry(group_values.group), group_values.payload, qos=0)
            else:
                await self._changed.wait()

    async def _answer(self, link: Link, answer: Answer) -> None:
        await link.publish(
            self.topics.reply(answer.client),
            answer.payload,
            correlation=answer.correlation,
            expires_in_s=ANSWER_EXPIRY_S,
        )

    async def _publish(self, link: Link, session: DoorSession, row: Publish) -> None:
        code = await link.publish(
            self.topics.of(row.suffix),
            row.payload,
            qos=row.qos,
            retain=row.retain,
            expires_in_s=row.expires_in_s,
            correlation=row.correlation,
        )
        nobody = row.key and code == NO_MATCHING_SUBSCRIBERS
        await session.send(Published(id=row.id, ok=code < FIRST_FAILURE_CODE and not nobody, code=code))

    async def _incoming(self, link: Link, session: DoorSession) -> None:
        while True:
            message = await link.next_message()
            recipient = self.topics.acknowledging(message.topic)
            if recipient is not None:
                if len(message.payload) <= MAX_KEY_ACK_BYTES and len(recipient) <= 64:
                    await session.send(KeyReceipt(recipient=recipient, payload=message.payload))
            elif len(message.payload) <= MAX_REQUEST_BYTES and len(message.topic) <= 256:
                await session.send(_inbound(message))
            else:
                self._report("request.dropped", f"{len(message.payload)} bytes on a topic of {len(message.topic)}")

    def _say_down(self, what: str, why: str) -> None:
        """Once a reason, not once an attempt."""
        if self._last_down != f"{what} {why}":
            self._last_down = f"{what} {why}"
            self._report(f"{what}.down", why)


def _inbound(message: Arrived) -> Inbound:
    fits = message.correlation is None or len(message.correlation) <= 1024
    return Inbound(
        topic=message.topic,
        payload=message.payload,
        retained=message.retained,
        duplicate=message.duplicate,
        response_topic=message.response_topic[:256] if message.response_topic is not None else None,
        correlation=message.correlation if fits else None,
    )


async def run_uplink(settings: UplinkSettings, randomness: Randomness, report: Report = lambda _n, _w: None) -> None:
    """The uplink process, until cancelled. Raises OSError when the relay's address cannot be had."""
    await Uplink(settings, randomness, report).run()
