"""Core's side of the door, free of any transport: what goes out to uplink and what may come in.

Uplink is on the network's side and not trusted. Nothing that arrives is acted on here: a request goes to `on_request`,
a key acknowledgement to `on_key_ack`, and each of them believes signatures only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from qmodd.budget import Budget
from qmodd.clock import Clock
from qmodd.door_channel import DoorChannel
from qmodd.door_frames import (
    VERSION,
    Answer,
    BrokerState,
    ChannelCredit,
    ChannelData,
    Frame,
    Hello,
    Inbound,
    KeyReceipt,
    PeerState,
    ProtocolError,
    Publish,
    Published,
    Telemetry,
)
from qmodd.messages import Alive, Number, telemetry
from qmodd.outbox import Outbox, Row

AnswerSender = Callable[[str, bytes], None]
OnRequest = Callable[[Inbound, AnswerSender], Awaitable[None]]
OnKeyAck = Callable[[str, bytes], None]
Report = Callable[[str, str], None]

PUBLISH_WINDOW = 64
TELEMETRY_KEPT = 64
ANSWERS_KEPT = 64
REQUESTS_AT_ONCE = 16
KEY_RECEIPT_WAIT_S = 20.0
RETRY_FIRST_S, RETRY_MOST_S = 0.5, 5.0
NO_MATCHING_SUBSCRIBERS = 0x10


@dataclass
class DoorCore:
    """Queues, windows and state of the door. One link (a connected uplink) at a time.

    `report(name, why)` is told of everything that an operator or auditor may want to know: uplink and broker coming and
    going, protocol errors, requests dropped unread.
    """

    outbox: Outbox
    clock: Clock
    alive: Alive
    module: str
    on_request: OnRequest
    on_key_ack: OnKeyAck
    report: Report = lambda _name, _why: None
    broker_connected: bool = field(default=False, init=False)
    telemetry_dropped: int = field(default=0, init=False)
    requests_dropped: int = field(default=0, init=False)
    answers_dropped: int = field(default=0, init=False)
    # Told group and payload of all telemetry, whether uplink is there or not.
    taps: list[Callable[[str, bytes], None]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._wake = asyncio.Event()
        self.channel = DoorChannel(self._wake.set)
        self._link = 0
        self._attached = False
        self._greeted = False
        self._control: deque[Frame] = deque()
        self._answers: deque[Answer] = deque()
        self._telemetry: deque[Telemetry] = deque()
        self._ready: deque[Row] = deque()
        self._in_flight: dict[int, bool] = {}
        self._attempts: dict[int, int] = {}
        self._due: dict[int, float] = {}
        self._dirty = True
        self._seq: dict[str, int] = {}
        self._budget = Budget(self.clock)
        self._inbox: asyncio.Queue[Inbound] = asyncio.Queue(REQUESTS_AT_ONCE)
        self._busy = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self.outbox.listeners.append(self._outbox_changed)

    # for the daemon

    @property
    def uplink_connected(self) -> bool:
        return self._greeted

    def telemetry(self, group: str, values: Mapping[str, Number]) -> None:
        """Queue a group's newest values; bounded, the oldest goes first, and every object carries how many went."""
        self._seq[group] = self._seq.get(group, 0) + 1
        flat = telemetry(self.clock.utc().timestamp(), self._seq[group], values)
        flat["dropped_count"] = self.telemetry_dropped
        if len(self._telemetry) >= TELEMETRY_KEPT:
            self._telemetry.popleft()
            self.telemetry_dropped += 1
        payload = json.dumps(flat).encode()
        self._telemetry.append(Telemetry(group=group, payload=payload))
        for tap in self.taps:
            tap(group, payload)
        self._wake.set()

    async def serve_requests(self) -> None:
        """Runs `on_request` for what came in, at most `REQUESTS_AT_ONCE` at a time. Part of the daemon's task tree."""
        async with asyncio.TaskGroup() as group:
            while True:
                inbound = await self._inbox.get()
                await self._busy.acquire()
                group.create_task(self._serve(inbound), name=f"request {inbound.topic}")

    async def _serve(self, inbound: Inbound) -> None:
        def answer(client: str, payload: bytes) -> None:
            if len(self._answers) >= ANSWERS_KEPT:
                self._answers.popleft()
                self.answers_dropped += 1
            self._answers.append(Answer(client=client, payload=payload, correlation=inbound.correlation))
            self._wake.set()

        try:
            await self.on_request(inbound, answer)
        finally:
            self._busy.release()

    # for the transport

    def attach(self) -> int:
        """A new uplink is there; the one before it is forgotten. Returns the number of the link."""
        self.detach(self._link, "replaced by a newer uplink")
        self._link += 1
        self._attached = True
        self._control.append(Hello(module=self.module, alive=self.alive.payload()))
        self._wake.set()
        return self._link

    def detach(self, link: int, why: str) -> None:
        """The link has ended; a link that was replaced before changes nothing."""
        if link != self._link or not self._attached:
            return
        self._attached = False
        greeted, self._greeted = self._greeted, False
        self._control.clear()
        self._set_broker(False, why)
        self.channel.down(f"uplink is not connected: {why}")
        if greeted:
            self.report("uplink.lost", why)

    def feed(self, link: int, frame: Frame) -> None:
        """One frame from uplink. Raises ProtocolError; the transport then drops the link."""
        self._check(link)
        if not self._greeted:
            self._greet(frame)
            return
        match frame:
            case Published():
                self._published(frame)
            case Inbound():
                self._request(frame)
            case KeyReceipt():
                if self._budget.take():
                    self.on_key_ack(frame.recipient, frame.payload)
            case BrokerState():
                self._set_broker(frame.connected, "connected" if frame.connected else "uplink has no broker")
                if frame.requests_dropped:
                    self.report("request.dropped", f"{frame.requests_dropped} so far: more requests than uplink passes")
            case PeerState():
                self._peer(frame)
            case ChannelData():
                self.channel.data(frame)
            case ChannelCredit():
                self.channel.credit(frame)
            case _:
                raise ProtocolError(f"{type(frame).__name__} is not for this state")

    async def next_frame(self, link: int) -> Frame:
        """Most urgent frame for uplink: service channel, then answers, then the outbox in order, telemetry last.

        Raises ProtocolError when the link has been replaced.
        """
        while True:
            self._check(link)
            self._wake.clear()
            if (frame := self._poll()) is not None:
                return frame
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._next_due_s()):
                    await self._wake.wait()

    # inside

    def _check(self, link: int) -> None:
        if link != self._link or not self._attached:
            raise ProtocolError("replaced by a newer uplink")

    def _greet(self, frame: Frame) -> None:
        if not isinstance(frame, Hello):
            raise ProtocolError("the first frame is not a Hello")
        if frame.version != VERSION:
            raise ProtocolError(f"speaks version {frame.version} of the door, core speaks {VERSION}")
        self._greeted = True
        self.report("uplink.connected", "")
        self._wake.set()

    def _peer(self, frame: PeerState) -> None:
        was = self.channel.connected
        self.channel.peer(frame)
        if was != frame.up:
            self.report("peer.connected" if frame.up else "peer.lost", frame.why)

    def _request(self, frame: Inbound) -> None:
        if self._inbox.full() or not self._budget.take():
            self.requests_dropped += 1
            if self.requests_dropped.bit_count() == 1:  # told at 1, 2, 4, 8, ...: a flood must not flood the log
                self.report("request.dropped", f"{self.requests_dropped} so far: more requests than core reads")
            return
        self._inbox.put_nowait(frame)

    def _published(self, frame: Published) -> None:
        key = self._in_flight.pop(frame.id, None)
        if key is None:
            return  # of a link that has ended, or invented
        if frame.ok:
            self.outbox.published(frame.id)
            self._attempts.pop(frame.id, None)
            if key:
                self._due[frame.id] = self.clock.monotonic() + KEY_RECEIPT_WAIT_S
        else:
            tries = self._attempts[frame.id] = self._attempts.get(frame.id, 0) + 1
            self._due[frame.id] = self.clock.monotonic() + min(RETRY_MOST_S, RETRY_FIRST_S * 2.0 ** (tries - 1))
        self._outbox_changed()

    def _set_broker(self, connected: bool, why: str) -> None:
        if connected == self.broker_connected:
            return
        self.broker_connected = connected
        self._in_flight.clear()
        self._ready.clear()
        self._due.clear()
        self._attempts.clear()
        if connected:
            self.outbox.renew()
        self.report("broker.connected" if connected else "broker.lost", why)
        self._outbox_changed()

    def _outbox_changed(self) -> None:
        self._dirty = True
        self._wake.set()

    def _poll(self) -> Frame | None:
        if not self._attached:
            return None
        if self._control:
            return self._control.popleft()
        if not self._greeted:
            return None
        if self.channel.outgoing:
            return self.channel.outgoing.popleft()
        if not self.broker_connected:
            return None
        if self._answers:
            return self._answers.popleft()
        if (row := self._next_row()) is not None:
            return self._publish(row)
        return self._telemetry.popleft() if self._telemetry else None

    def _next_row(self) -> Row | None:
        self._retry_due()
        if len(self._in_flight) >= PUBLISH_WINDOW:
            return None
        if not self._ready and self._dirty:
            self._dirty = False
            if self.clock.utc_synchronised():
                self.outbox.expire(self.clock.utc())
            self._ready.extend(self.outbox.pending(PUBLISH_WINDOW, skip=self._in_flight.keys() | self._due.keys()))
            self._dirty = len(self._ready) == PUBLISH_WINDOW
        return self._ready.popleft() if self._ready else None

    def _publish(self, row: Row) -> Publish:
        self._in_flight[row.id] = row.kind == "key"
        left = None if row.expiry is None else max(1, int(row.expiry - self.clock.utc().timestamp()))
        return Publish(
            id=row.id,
            suffix=row.suffix,
            payload=row.payload,
            qos=row.qos,
            retain=row.retain,
            key=row.kind == "key",
            expires_in_s=None if left is None else min(left, 0xFFFF_FFFF),
            correlation=row.dedupe,
        )

    def _retry_due(self) -> None:
        now = self.clock.monotonic()
        for row_id in [i for i, due in self._due.items() if due <= now]:
            del self._due[row_id]
            self.outbox.resend(row_id)
            self._dirty = True

    def _next_due_s(self) -> float | None:
        if not self.broker_connected or not self._due:
            return None
        return max(0.0, min(self._due.values()) - self.clock.monotonic())
