"""The framed protocol between a supervisor and the world process, over a Unix stream socket.

A frame is a little-endian u32 length and a body. A request's body names operation, module and device path, so that it
stands alone; a reply's body is a signed status (negative: an errno) and a payload. One request is outstanding a
connection, except that a world may first answer HANG: the bus stays silent, on purpose, until the real reply comes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

MAX_BODY = 1 << 20
"""Bytes; a bus transfer is far smaller (the kernel's own limits: 8 KiB an I2C message, 4 KiB an SPI message)."""
I2C_M_RD = 0x0001
HANG = -(1 << 16)
"""Status that announces a bus which hangs as the scenario ordered: keep waiting, without a time-out."""

_LENGTH = struct.Struct("<I")
_STATUS = struct.Struct("<i")
_SMBUS = struct.Struct("<HBBBB")
_MESSAGE = struct.Struct("<HHH")
_TRANSFER = struct.Struct("<IIHBBB")


class ProtocolError(ValueError):
    """A frame that this protocol does not allow; the connection is of no more use."""


@dataclass(frozen=True)
class Open:
    """Does the module have this device? The reply's payload is empty."""


@dataclass(frozen=True)
class Smbus:
    """One SMBus transaction as the ioctl I2C_SMBUS states it; `data` as in union i2c_smbus_data, at most 34 bytes.

    The reply's payload is the union after the transaction (empty for a write).
    """

    address: int
    read: bool
    command: int
    size: int
    data: bytes
    pec: bool = False


@dataclass(frozen=True)
class I2cMessage:
    """One I2C message: `data` to write, or `length` bytes to read (flags & I2C_M_RD)."""

    address: int
    flags: int
    length: int
    data: bytes = b""

    @property
    def is_read(self) -> bool:
        return bool(self.flags & I2C_M_RD)


@dataclass(frozen=True)
class Rdwr:
    """Messages joined by repeated starts. The reply's payload is what the reads returned, one after another."""

    messages: tuple[I2cMessage, ...]


@dataclass(frozen=True)
class SpiTransfer:
    """One transfer. Chip select stays low to the next one unless `cs_change`. `tx` None: zeros are clocked out."""

    length: int
    hz: int
    delay_us: int = 0
    bits: int = 8
    cs_change: bool = False
    tx: bytes | None = None


@dataclass(frozen=True)
class Spi:
    """A list of transfers in one of the modes 0 to 3. The reply's payload is what came in, of all transfers joined."""

    mode: int
    transfers: tuple[SpiTransfer, ...]


Operation = Open | Smbus | Rdwr | Spi


@dataclass(frozen=True)
class Request:
    module: str
    path: str
    operation: Operation


@dataclass(frozen=True)
class Reply:
    """`status`: negative errno, HANG, or a count that the system call returns."""

    status: int
    payload: bytes = b""


def frame(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a byte stream into bodies. Raises ProtocolError for a frame longer than MAX_BODY."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        bodies = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_BODY:
                raise ProtocolError(f"frame of {length} bytes; at most {MAX_BODY} are allowed")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
        return bodies


class _Reader:
    """Takes fields off a body; anything missing is a ProtocolError."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, count: int) -> bytes:
        piece = self._body[self._at : self._at + count]
        if len(piece) != count:
            raise ProtocolError("frame ends early")
        self._at += count
        return piece

    def fields(self, form: struct.Struct) -> tuple[int, ...]:
        return form.unpack(self.take(form.size))

    def byte(self) -> int:
        return self.take(1)[0]

    def text(self) -> str:
        try:
            return self.take(self.byte()).decode()
        except UnicodeDecodeError as e:
            raise ProtocolError("name is not UTF-8") from e

    def end(self) -> None:
        if self._at != len(self._body):
            raise ProtocolError(f"{len(self._body) - self._at} bytes too many in a frame")


def _text(value: str) -> bytes:
    raw = value.encode()
    if len(raw) > 255:
        raise ProtocolError("name longer than 255 bytes")
    return bytes([len(raw)]) + raw


def _encode_operation(operation: Operation) -> bytes:
    match operation:
        case Open():
            return b"\x01"
        case Smbus(address, read, command, size, data, pec):
            head = _SMBUS.pack(address, read, command, size, pec)
            return b"\x02" + head + bytes([len(data)]) + data
        case Rdwr(messages):
            parts = [b"\x03", bytes([len(messages)])]
            for m in messages:
                parts += [_MESSAGE.pack(m.address, m.flags, m.length), b"" if m.is_read else m.data]
            return b"".join(parts)
        case Spi(mode, transfers):
            parts = [b"\x04", bytes([mode]), struct.pack("<H", len(transfers))]
            for t in transfers:
                has_tx = t.tx is not None
                parts += [_TRANSFER.pack(t.length, t.hz, t.delay_us, t.bits, t.cs_change, has_tx), t.tx or b""]
            return b"".join(parts)


def _decode_smbus(reader: _Reader) -> Smbus:
    address, read, command, size, pec = reader.fields(_SMBUS)
    data = reader.take(reader.byte())
    if len(data) > 34 or read > 1 or pec > 1:
        raise ProtocolError("SMBus request out of range")
    return Smbus(address, bool(read), command, size, data, bool(pec))


def _decode_rdwr(reader: _Reader) -> Rdwr:
    messages = []
    for _ in range(reader.byte()):
        address, flags, length = reader.fields(_MESSAGE)
        data = b"" if flags & I2C_M_RD else reader.take(length)
        messages.append(I2cMessage(address, flags, length, data))
    return Rdwr(tuple(messages))


def _decode_spi(reader: _Reader) -> Spi:
    mode, low, high = reader.take(3)
    transfers = []
    for _ in range(low | high << 8):
        length, hz, delay_us, bits, cs_change, has_tx = reader.fields(_TRANSFER)
        if length > MAX_BODY or cs_change > 1 or has_tx > 1:
            raise ProtocolError("SPI request out of range")
        tx = reader.take(length) if has_tx else None
        transfers.append(SpiTransfer(length, hz, delay_us, bits, bool(cs_change), tx))
    return Spi(mode, tuple(transfers))


_DECODERS: dict[int, Callable[[_Reader], Operation]] = {
    1: lambda _: Open(),
    2: _decode_smbus,
    3: _decode_rdwr,
    4: _decode_spi,
}


def encode_request(request: Request) -> bytes:
    """A whole frame. Raises ProtocolError for names longer than 255 bytes."""
    return frame(_text(request.module) + _text(request.path) + _encode_operation(request.operation))


def decode_request(body: bytes) -> Request:
    """Raises ProtocolError."""
    reader = _Reader(body)
    module, path, code = reader.text(), reader.text(), reader.byte()
    decoder = _DECODERS.get(code)
    if decoder is None:
        raise ProtocolError(f"unknown operation {code}")
    request = Request(module, path, decoder(reader))
    reader.end()
    return request


def encode_reply(reply: Reply) -> bytes:
    """A whole frame."""
    return frame(_STATUS.pack(reply.status) + reply.payload)


def decode_reply(body: bytes) -> Reply:
    """Raises ProtocolError."""
    if len(body) < _STATUS.size:
        raise ProtocolError("reply without a status")
    (status,) = _STATUS.unpack_from(body)
    return Reply(status, bytes(body[_STATUS.size :]))
