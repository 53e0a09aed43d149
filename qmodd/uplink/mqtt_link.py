"""A thin typed wrapper of aiomqtt: MQTT 5, TCP_NODELAY, reason codes of PUBACKs, properties, reconnection.

aiomqtt drops PUBACK reason codes and the DUP flag, never reconnects, and leaves properties untyped (reference mqtt);
everything that needs its inside is here, so that another client library can take its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Never

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from qmodd.broker_settings import BrokerSettings, LinkDown
from qmodd.randomness import Randomness

__all__ = [
    "FIRST_FAILURE_CODE",
    "KEEP_ALIVE_S",
    "NO_MATCHING_SUBSCRIBERS",
    "TAKEN_OVER",
    "Arrived",
    "Backoff",
    "BrokerSettings",
    "Link",
    "LinkDown",
    "Will",
    "keep_link",
    "open_link",
]

NO_MATCHING_SUBSCRIBERS = 0x10
FIRST_FAILURE_CODE = 0x80
# Another client with the same client id has connected.
TAKEN_OVER = 0x8E
HUNG_UP = "it hung up during the greeting; does it speak MQTT 5, and accept this client's certificate?"
KEEP_ALIVE_S = 4
CALL_TIMEOUT_S = 5.0
ARRIVED_KEPT = 256
ARRIVED_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Will:
    topic: str
    payload: bytes


@dataclass(frozen=True)
class Arrived:
    """A message as the broker handed it over."""

    topic: str
    payload: bytes
    retained: bool
    duplicate: bool
    response_topic: str | None
    correlation: bytes | None


@dataclass
class Backoff:
    """Waiting times in seconds: doubled each time, with jitter so that a fleet does not come back in step."""

    randomness: Randomness
    first_s: float = 0.2
    most_s: float = 5.0
    _tries: int = field(default=0, init=False)

    def next_s(self) -> float:
        longest = min(self.most_s, self.first_s * 2.0 ** min(self._tries, 16))
        self._tries += 1
        return longest * (0.5 + int.from_bytes(self.randomness.bytes(2), "big") / 131_072)

    def reset(self) -> None:
        self._tries = 0


def _properties(packet: int) -> Any:
    return Properties(packet)  # type: ignore[no-untyped-call] # set as attributes, which no type describes


class _Client(aiomqtt.Client):
    """aiomqtt with what it leaves out. Its callbacks run in the event loop."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.codes: dict[int, asyncio.Future[int]] = {}
        self.arrived: deque[Arrived] = deque()
        self.arrived_bytes = 0
        self.arrived_dropped = 0
        self.changed = asyncio.Event()
        self.why_lost: str | None = None
        self.code_lost: int | None = None
        super().__init__(*args, **options)

    def watch(self) -> None:
        """From here on the end of the connection is told to everybody who waits."""
        self._disconnected.add_done_callback(self._lost)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        """aiomqtt would wait for the whole time-out for the answer of a broker that has hung up."""
        if not self._connected.done():
            self._connected.set_exception(aiomqtt.MqttError(HUNG_UP))
            return
        super()._on_disconnect(client, userdata, flags, reason_code, properties)

    def abandon(self) -> None:
        """Close what a greeting that failed has left open."""
        self._client._sock_close()

    def _lost(self, ended: asyncio.Future[None]) -> None:
        error = None if ended.cancelled() else ended.exception()
        self.code_lost = _code_of(error)
        self.why_lost = f"connection to the broker lost: {error}" if error else "disconnected from the broker"
        if self.code_lost == TAKEN_OVER:
            self.why_lost = "another client with this client's id has connected and taken the session over"
        for waiting in self.codes.values():
            if not waiting.done():
                waiting.set_exception(self.lost())
        self.codes.clear()
        self.changed.set()

    def lost(self) -> LinkDown:
        """What everybody who waits gets."""
        return LinkDown(self.why_lost or "disconnected from the broker", self.code_lost)

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        waiting = self.codes.pop(mid, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(int(reason_code.value))

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        size = len(message.payload)
        if len(self.arrived) >= ARRIVED_KEPT or (self.arrived and self.arrived_bytes + size > ARRIVED_BYTES):
            self.arrived_dropped += 1
            return
        self.arrived_bytes += size
        properties = message.properties
        self.arrived.append(
            Arrived(
                topic=message.topic,
                payload=bytes(message.payload),
                retained=bool(message.retain),
                duplicate=bool(message.dup),
                response_topic=getattr(properties, "ResponseTopic", None),
                correlation=getattr(properties, "CorrelationData", None),
            )
        )
        self.changed.set()

    def start_publish(
        self, topic: str, payload: bytes, qos: int, retain: bool, properties: Properties
    ) -> asyncio.Future[int] | None:
        """Hands it to the socket now; the future gives the reason code (None at QoS 0)."""
        if self.why_lost is not None:
            raise self.lost()
        info = self._client.publish(topic, payload, qos, retain, properties)
        if info.rc != 0:
            raise LinkDown(f"cannot publish on {topic}: client error {info.rc}")
        if qos == 0:
            return None
        code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.codes[info.mid] = code
        return code


class Link:
    """An open connection to the broker; one consumer of messages."""

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._told = 0

    @property
    def dropped(self) -> int:
        """Messages that came faster than they were taken."""
        return self._client.arrived_dropped

    def take_dropped(self) -> int:
        """As `dropped`, since the last call."""
        new = self._client.arrived_dropped - self._told
        self._told += new
        return new

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
        """Returns the broker's reason code (0 success, 0x10 nobody subscribes, from 0x80 failed). Raises LinkDown.

        Calls that are begun in order go out in order.
        """
        properties = _properties(PacketTypes.PUBLISH)
        wanted = {
            "MessageExpiryInterval": expires_in_s,
            "CorrelationData": correlation,
            "ResponseTopic": response_topic,
        }
        for name, value in wanted.items():
            if value is not None:
                setattr(properties, name, value)
        code = self._client.start_publish(topic, payload, qos, retain, properties)
        return 0 if code is None else await code

    async def subscribe(self, *filters: str) -> None:
        """QoS 1, and with the publisher's own retain flag. Raises LinkDown, also when the broker refuses."""
        options = SubscribeOptions(qos=1, retainAsPublished=True)
        try:
            codes: Any = await self._client.subscribe([(f, options) for f in filters])
        except aiomqtt.MqttError as e:
            raise LinkDown(f"cannot subscribe: {e}") from None
        for wanted, code in zip(filters, codes, strict=True):
            if code.value >= FIRST_FAILURE_CODE:
                raise LinkDown(f"the broker refuses the subscription to {wanted} (reason code {code.value:#x})")

    async def next_message(self) -> Arrived:
        """Raises LinkDown when the connection ends."""
        client = self._client
        while not client.arrived:
            if client.why_lost is not None:
                raise client.lost()
            client.changed.clear()
            await client.changed.wait()
        message = client.arrived.popleft()
        client.arrived_bytes -= len(message.payload)
        return message

    async def watch(self) -> Never:
        """Raises LinkDown when the connection ends: the task that ends everything which belongs to it."""
        while self._client.why_lost is None:
            await asyncio.wait([self._client._disconnected])
        raise self._client.lost()


def _code_of(error: BaseException | None) -> int | None:
    """The reason code in what aiomqtt raises."""
    rc = getattr(error, "rc", None)
    value = getattr(rc, "value", rc)
    return value if isinstance(value, int) else None


@asynccontextmanager
async def open_link(
    broker: BrokerSettings,
    client_id: str,
    *,
    will: Will | None = None,
    session_expiry_s: int = 0,
    keep_alive_s: int = KEEP_ALIVE_S,
) -> AsyncIterator[Link]:
    """Connect; on a clean exit disconnect, so that the will is not published. Raises LinkDown.

    `session_expiry_s` 0 begins anew each time; otherwise the broker keeps the session (and queues) for so long. A
    broker that says nothing for about twice `keep_alive_s` is given up.
    """
    host, port = broker.endpoint()
    properties = _properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = session_expiry_s
    client = _Client(
        host,
        port,
        identifier=client_id,
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=session_expiry_s == 0,
        properties=properties,
        username=broker.username,
        password=broker.password,
        tls_context=broker.tls(),
        will=aiomqtt.Will(will.topic, will.payload, 1, True) if will else None,
        keepalive=keep_alive_s,
        timeout=CALL_TIMEOUT_S,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    )
    try:
        await client.__aenter__()
    except aiomqtt.MqttError as e:
        client.abandon()
        raise LinkDown(f"no connection to {broker.url}: {e}", _code_of(e)) from None
    except asyncio.CancelledError:
        client.abandon()
        raise
    client.watch()
    try:
        yield Link(client)
    finally:
        with contextlib.suppress(aiomqtt.MqttError):  # not even a goodbye got through: the will speaks
            await client.__aexit__(None, None, None)


async def keep_link(
    broker: BrokerSettings,
    client_id: str,
    serve: Callable[[Link], Awaitable[None]],
    backoff: Backoff,
    on_down: Callable[[str], None],
    *,
    session_expiry_s: int = 0,
) -> None:
    """Connect, run `serve` until the connection ends, and again, until `serve` returns of itself."""
    while True:
        try:
            async with open_link(broker, client_id, session_expiry_s=session_expiry_s) as link:
                await serve(link)
                return
        except LinkDown as e:
            on_down(str(e))
        await asyncio.sleep(backoff.next_s())
