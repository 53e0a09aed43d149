"""Two cores' doors joined in memory, for simulated time: no sockets, no broker, latency by the loop's own clock."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from qmodd.door_core import DoorCore
from qmodd.door_frames import (
    Answer,
    BrokerState,
    ChannelCredit,
    ChannelData,
    Frame,
    Hello,
    Inbound,
    KeyReceipt,
    PeerState,
    Publish,
    Published,
    Telemetry,
)

# Takes a sealed batch, returns the signed acknowledgement (None: not for us).
KeyReceiver = Callable[[bytes], bytes | None]
OnPublish = Callable[[str, str, bytes], None]


@dataclass
class _Side:
    door: DoorCore
    link: int = 0
    # In order: callbacks of equal time are not, so each takes the oldest from here.
    under_way: deque[Frame] = field(default_factory=deque)


class MemoryUplink:
    """Stands in for both uplinks, the relay and the broker.

    `latency_s` is one way and the same for the service channel and for acknowledgements. `receivers` of
    batches and `notices` about their keys by module and recipient; one without a receiver is undelivered, as with a
    broker that has no subscriber. Everything
    published (telemetry and answers, too) is told to `on_publish(module, topic suffix, payload)`.
    """

    def __init__(
        self,
        alice: DoorCore,
        bob: DoorCore,
        latency_s: float,
        *,
        receivers: Mapping[tuple[str, str], KeyReceiver] | None = None,
        notices: Mapping[tuple[str, str], KeyReceiver] | None = None,
        on_publish: OnPublish = lambda _module, _suffix, _payload: None,
    ) -> None:
        self.latency_s = latency_s
        self._sides = (_Side(alice), _Side(bob))
        self._receivers = dict(receivers or {})
        self._notices = dict(notices or {})
        self._on_publish = on_publish
        self._peer_number = 0
        self._peer_up = False

    async def run(self, *, peer_up: bool = True) -> None:
        """Attach both cores and carry frames until cancelled."""
        for side in self._sides:
            side.link = side.door.attach()
            side.door.feed(side.link, Hello())
            side.door.feed(side.link, BrokerState(connected=True))
        if peer_up:
            self.connect_peers()
        try:
            async with asyncio.TaskGroup() as group:
                for side, other in (self._sides, self._sides[::-1]):
                    group.create_task(self._pump(side, other), name=f"memory uplink {side.door.module}")
        finally:
            self._peer_up = False
            for side in self._sides:
                side.door.detach(side.link, "uplink stopped")

    def connect_peers(self) -> None:
        """The service channel comes up, as a new connection."""
        self._peer_number += 1
        self._peer_up = True
        self._tell_peers("")

    def cut_peers(self, why: str = "the peer's uplink closed the connection") -> None:
        """The service channel goes down; what was under way is lost."""
        self._peer_up = False
        self._tell_peers(why)

    def request(self, module: str, inbound: Inbound) -> None:
        """Hand in a request as from the broker."""
        side = next(s for s in self._sides if s.door.module == module)
        side.door.feed(side.link, inbound)

    def _tell_peers(self, why: str) -> None:
        for side in self._sides:
            side.door.feed(side.link, PeerState(up=self._peer_up, link=self._peer_number, why=why))

    async def _pump(self, side: _Side, other: _Side) -> None:
        while True:
            frame = await side.door.next_frame(side.link)
            match frame:
                case ChannelData() if self._peer_up:
                    self._later(other, frame)
                case ChannelCredit() if self._peer_up:
                    self._later(other, frame)
                case Publish():
                    self._publish(side, frame)
                case Telemetry():
                    self._on_publish(side.door.module, f"telemetry/{frame.group}", frame.payload)
                case Answer():
                    self._on_publish(side.door.module, f"reply/{frame.client}", frame.payload)

    def _later(self, to: _Side, frame: Frame) -> None:
        to.under_way.append(frame)
        asyncio.get_running_loop().call_later(self.latency_s, self._arrive, to)

    def _arrive(self, to: _Side) -> None:
        frame = to.under_way.popleft()
        if isinstance(frame, ChannelData | ChannelCredit) and not (self._peer_up and frame.link == self._peer_number):
            return
        if to.door.uplink_connected:
            to.door.feed(to.link, frame)

    def _publish(self, side: _Side, row: Publish) -> None:
        self._on_publish(side.door.module, row.suffix, row.payload)
        receipt: bytes | None = None
        delivered = True
        if row.key:
            recipient, _, kind = row.suffix.removeprefix("keys/").partition("/")
            receiver = (self._notices if kind else self._receivers).get((side.door.module, recipient))
            delivered = receiver is not None
            receipt = receiver(row.payload) if receiver else None
        side.door.feed(side.link, Published(id=row.id, ok=delivered, code=0 if delivered else 0x10))
        if receipt is not None:
            self._later(side, KeyReceipt(recipient=recipient, payload=receipt))
