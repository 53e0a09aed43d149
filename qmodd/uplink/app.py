"""The uplink process: the network's side of a module. Keeps nothing that matters and may be killed at any time.

Three things run side by side: the door to core, the relay of the service channel (only while core is there: a channel
without a core behind it is not up), and the broker connection (which the relay does not need). `alive` is written here,
because only uplink can say that core is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable
from contextlib import aclosing

from qmodd.budget import Budget
from qmodd.clock import Clock, SystemClock
from qmodd.door_frames import (
    Answer,
    BrokerState,
    ChannelCredit,
    ChannelData,
    Frame,
    KeyReceipt,
    Publish,
    Published,
    Telemetry,
)
from qmodd.messages import MAX_KEY_ACK_BYTES, MAX_REQUEST_BYTES, Alive, telemetry
from qmodd.randomness import Randomness
from qmodd.uplink.client import DoorClosed, DoorSession, inbound, open_door
from qmodd.uplink.mqtt_link import (
    FIRST_FAILURE_CODE,
    NO_MATCHING_SUBSCRIBERS,
    Backoff,
    Link,
    LinkDown,
    Will,
    open_link,
)
from qmodd.uplink.patience import Patience
from qmodd.uplink.relay import Relay, split_address
from qmodd.uplink.settings import Counts, UplinkSettings
from qmodd.uplink.topics import Topics

__all__ = ["Uplink", "UplinkSettings", "run_uplink"]

TELEMETRY_KEPT = 64
ANSWERS_KEPT = 64
ANSWER_EXPIRY_S = 60
DENIED_KEPT = 256
# More than an operations centre asks of one module, and less than would be felt in its loops.
REQUESTS_PER_S, REQUESTS_BURST = 20.0, 50.0
OFFLINE_WAIT_S = 1.0
# What is sent to the module in a short outage waits at the broker; a request expires by itself after a minute.
SESSION_EXPIRY_S = 30
OWN_TELEMETRY_S = 10.0
DOOR_RETRY_MOST_S = 0.5

Report = Callable[[str, str], None]


class Uplink:
    """State shared by the three tasks. `report(name, why)` gets what is worth a log line."""

    def __init__(
        self, settings: UplinkSettings, randomness: Randomness, report: Report, clock: Clock | None = None
    ) -> None:
        self.settings = settings
        self.topics = Topics(settings.serial)
        self.relay_port: int | None = None
        self.counts = Counts()
        self._clock = clock or SystemClock()
        self._seq = 0
        self._randomness = randomness
        self._report = report
        self._session: DoorSession | None = None
        self._alive: Alive | None = None
        self._changed = asyncio.Event()
        self._publishes: deque[Publish] = deque()
        self._answers: deque[Answer] = deque(maxlen=ANSWERS_KEPT)
        self._telemetry: deque[Telemetry] = deque(maxlen=TELEMETRY_KEPT)
        self._last_down = ""
        self._denied: set[str] = set()
        self._requests = Budget(self._clock, REQUESTS_PER_S, REQUESTS_BURST)

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
                self.counts.answers_dropped += len(self._answers) == ANSWERS_KEPT
                self._answers.append(frame)
            case Telemetry():
                self.counts.telemetry_dropped += len(self._telemetry) == TELEMETRY_KEPT
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
        patience = Patience(Backoff(self._randomness))
        while True:
            alive = await self._known_alive()
            will = Will(self.topics.alive, alive.offline().payload())
            begun: float | None = None
            code: int | None = None
            try:
                async with open_link(
                    self.settings.broker,
                    f"qmodd-{self.settings.serial}",
                    will=will,
                    session_expiry_s=SESSION_EXPIRY_S,
                    keep_alive_s=self.settings.keep_alive_s,
                ) as link:
                    begun = self._clock.monotonic()
                    self.counts.connects += 1
                    await self._serve_broker(link, alive)
            except* LinkDown as e:
                code = _first(e).code
                self._say_down("broker", str(_first(e)))
            lived_s = None if begun is None else self._clock.monotonic() - begun
            wait_s, stands_back = patience.wait(lived_s, code)
            if stands_back:
                self._say_down("broker", f"standing back for {wait_s:.0f} s: another client may use this module's name")
            await asyncio.sleep(wait_s)

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
                group.create_task(self._own_telemetry(link), name="own telemetry")
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

    async def _own_telemetry(self, link: Link) -> None:
        """What only uplink knows, as a group of the module's telemetry."""
        while True:
            await asyncio.sleep(OWN_TELEMETRY_S)
            self.counts.arrived_dropped += link.take_dropped()
            self._seq += 1
            flat = telemetry(self._clock.utc().timestamp(), self._seq, self.counts.numbers())
            await link.publish(self.topics.telemetry("uplink"), json.dumps(flat).encode(), qos=0)

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
        if code >= FIRST_FAILURE_CODE:
            self._refused(row.suffix, code)
        await session.send(Published(id=row.id, ok=code < FIRST_FAILURE_CODE and not nobody, code=code))

    async def _incoming(self, link: Link, session: DoorSession) -> None:
        while True:
            message = await link.next_message()
            recipient = self.topics.acknowledging(message.topic)
            if recipient is not None:
                if len(message.payload) <= MAX_KEY_ACK_BYTES and len(recipient) <= 64:
                    await session.send(KeyReceipt(recipient=recipient, payload=message.payload))
            elif not self._requests.take():
                await self._drop_request(session)
            else:
                if len(message.payload) > MAX_REQUEST_BYTES:
                    self.counts.requests_too_large += 1
                    self._report("request.dropped", f"{len(message.payload)} bytes; at most {MAX_REQUEST_BYTES}")
                await session.send(inbound(message))

    async def _drop_request(self, session: DoorSession) -> None:
        """Core is told at 1, 2, 4, 8, ...: it writes down that there was a flood and is not flooded itself."""
        self.counts.requests_dropped += 1
        if self.counts.requests_dropped.bit_count() == 1:
            self._report("request.dropped", f"{self.counts.requests_dropped} so far: too many requests")
            await session.send(BrokerState(connected=True, requests_dropped=self.counts.requests_dropped))

    def _refused(self, suffix: str, code: int) -> None:
        """Once a topic: core tries again for ever, and only the broker's rules can help."""
        if suffix not in self._denied and len(self._denied) < DENIED_KEPT:
            self._denied.add(suffix)
            self._report("publish.refused", f"{suffix}: the broker does not take it (reason code {code:#x})")

    def _say_down(self, what: str, why: str) -> None:
        """Once a reason, not once an attempt."""
        if self._last_down != f"{what} {why}":
            self._last_down = f"{what} {why}"
            self._report(f"{what}.down", why)


def _first(group: BaseExceptionGroup[LinkDown]) -> LinkDown:
    """Every task of a link fails with it; one word is enough."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def run_uplink(
    settings: UplinkSettings, randomness: Randomness, report: Report = lambda _n, _w: None, clock: Clock | None = None
) -> None:
    """The uplink process, until cancelled. Raises OSError when the relay's address cannot be had."""
    await Uplink(settings, randomness, report, clock).run()
