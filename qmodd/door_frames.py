"""The schema of the door between core and uplink: length-prefixed frames, a type byte, CBOR.

Wire: u32 big-endian length of what follows, one type byte, a deterministic CBOR map. Every field has a type and a
bound; what does not fit ends the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qmodd import cbor

VERSION = 1
MAX_FRAME_BYTES = 8 * 1024 * 1024
MAX_MESSAGE_BYTES = MAX_FRAME_BYTES - 1024
# Bytes of service-channel messages that may be under way per direction before the receiving side grants more.
CHANNEL_WINDOW_BYTES = 4 * 1024 * 1024

_HEADER = struct.Struct(">I")
U32 = Annotated[int, Field(ge=0, le=0xFFFF_FFFF)]
U63 = Annotated[int, Field(ge=0, le=0x7FFF_FFFF_FFFF_FFFF)]
Topic = Annotated[str, Field(min_length=1, max_length=256)]
Blob = Annotated[bytes, Field(max_length=MAX_MESSAGE_BYTES)]
Small = Annotated[bytes, Field(max_length=1024)]


class ProtocolError(Exception):
    """The other side of the door does not keep to the schema; the message says how and repeats none of the content."""


class Frame(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    type_byte: ClassVar[int]


class Hello(Frame):
    """Both ways, first frame. Core tells what `alive` shall say; uplink leaves the fields empty."""

    type_byte = 1
    version: U32 = VERSION
    module: Annotated[str, Field(max_length=32)] = ""
    alive: Small = b""


class Publish(Frame):
    """Core to uplink: one row of the outbox."""

    type_byte = 2
    id: U63
    suffix: Topic
    payload: Blob
    qos: Annotated[int, Field(ge=0, le=1)]
    retain: bool
    key: bool
    expires_in_s: U32 | None = None
    correlation: Small | None = None


class Published(Frame):
    """Uplink to core: the broker's answer; `ok` False means undelivered, `code` is the MQTT 5 reason code."""

    type_byte = 3
    id: U63
    ok: bool
    code: Annotated[int, Field(ge=0, le=255)]


class Telemetry(Frame):
    type_byte = 4
    group: Annotated[str, Field(min_length=1, max_length=64)]
    payload: Annotated[bytes, Field(max_length=65_536)]


class Inbound(Frame):
    """Uplink to core: a request as it came, with what MQTT said about it."""

    type_byte = 5
    topic: Topic
    payload: Annotated[bytes, Field(max_length=MAX_FRAME_BYTES - 4096)]
    retained: bool = False
    duplicate: bool = False
    expired: bool = False
    response_topic: Annotated[str, Field(max_length=256)] | None = None
    correlation: Small | None = None


class Answer(Frame):
    """Core to uplink: a payload for `reply/<client>`."""

    type_byte = 6
    client: Annotated[str, Field(min_length=1, max_length=64)]
    payload: Annotated[bytes, Field(max_length=1024 * 1024)]
    correlation: Small | None = None


class KeyReceipt(Frame):
    """Uplink to core: a recipient's acknowledgement, not believed before its signature verifies."""

    type_byte = 7
    recipient: Annotated[str, Field(min_length=1, max_length=64)]
    payload: Annotated[bytes, Field(max_length=512 * 1024)]


class BrokerState(Frame):
    """Uplink to core. `requests_dropped`, where it is not 0: since uplink's start, a flood."""

    type_byte = 8
    connected: bool
    requests_dropped: U63 = 0


class PeerState(Frame):
    """Uplink to core: the service channel's far end is reachable or not; `link` numbers the connection."""

    type_byte = 9
    up: bool
    link: U63
    why: Annotated[str, Field(max_length=200)] = ""


class ChannelData(Frame):
    type_byte = 10
    link: U63
    data: Blob


class ChannelCredit(Frame):
    """So many bytes were taken; as many more may be sent."""

    type_byte = 11
    link: U63
    taken: U32


class Bye(Frame):
    """Core stops on purpose: `alive` shall say so now."""

    type_byte = 12


FROM_CORE: tuple[type[Frame], ...] = (Hello, Publish, Telemetry, Answer, ChannelData, ChannelCredit, Bye)
FROM_UPLINK: tuple[type[Frame], ...] = (
    Hello,
    Published,
    Inbound,
    KeyReceipt,
    BrokerState,
    PeerState,
    ChannelData,
    ChannelCredit,
)


def pack(frame: Frame) -> bytes:
    """Raises ValueError when the frame is over `MAX_FRAME_BYTES`."""
    body = bytes([frame.type_byte]) + cbor.encode(dict(frame))
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"{type(frame).__name__} of {len(body)} bytes; at most {MAX_FRAME_BYTES}")
    return _HEADER.pack(len(body)) + body


def parse(body: bytes, accepted: tuple[type[Frame], ...]) -> Frame:
    """One frame's bytes behind the length. Raises ProtocolError."""
    kind = next((k for k in accepted if body[:1] == bytes([k.type_byte])), None)
    if kind is None:
        raise ProtocolError(f"frame type {body[0] if body else 'missing'} is not for this direction")
    try:
        return kind.model_validate(cbor.decode(body[1:]))
    except cbor.Malformed as e:
        raise ProtocolError(f"{kind.__name__}: {e}") from None
    except ValidationError as e:
        first = e.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(p) for p in first["loc"])
        raise ProtocolError(f"{kind.__name__}.{where[:80]}: {first['type']}") from None


class Deframer:
    """Cuts a byte stream into frames; holds at most one frame."""

    def __init__(self, accepted: tuple[type[Frame], ...]) -> None:
        self._accepted = accepted
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Raises ProtocolError on the first frame that is wrong, as soon as its length is when that is."""
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= _HEADER.size:
                (length,) = _HEADER.unpack_from(self._buffer, at)
                if not 1 <= length <= MAX_FRAME_BYTES:
                    raise ProtocolError(f"frame of {length} bytes; allowed are 1 to {MAX_FRAME_BYTES}")
                end = at + _HEADER.size + length
                if len(self._buffer) < end:
                    break
                body = bytes(self._buffer[at + _HEADER.size : end])
                at = end
                yield parse(body, self._accepted)
        finally:
            del self._buffer[:at]
