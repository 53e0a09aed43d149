"""The world's end of the supervisors' connections: requests in, transfers on the emulated buses, replies out."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from sim.server.busproto import (
    HANG,
    Frames,
    I2cMessage,
    Open,
    Operation,
    ProtocolError,
    Rdwr,
    Reply,
    Request,
    Smbus,
    Spi,
    SpiTransfer,
    decode_request,
    encode_reply,
)

log = logging.getLogger(__name__)

HANG_LOOK_S = 0.05
"""How often a bus that hangs is looked at again, real seconds."""
_I2C = re.compile(r"/dev/i2c-(\d{1,5})")
_SPI = re.compile(r"/dev/spidev(\d{1,5})\.(\d{1,5})")


class I2cTwin(Protocol):
    """One adapter with its parts; errors are OSError with the errno that the kernel would give."""

    def transfer(self, address: int, messages: Sequence[tuple[int, bytes | int]], /) -> list[bytes]:
        """(flags, bytes to write) or (flags with I2C_M_RD, number of bytes to read); returns what the reads brought."""
        ...

    def smbus(self, address: int, read: int, command: int, size: int, data: bytes, pec: bool, /) -> bytes:
        """Union i2c_smbus_data after the transaction."""
        ...

    def hanging(self) -> bool:
        """True while the caller is to be left waiting."""
        ...


class SpiTwin(Protocol):
    """One chip select."""

    def transfer(self, tx: bytes, mode: int, hz: int, /) -> bytes: ...
    def hanging(self) -> bool: ...


class BusTwins(Protocol):
    """What the buses need of a rig."""

    @property
    def i2c(self) -> Mapping[int, I2cTwin]: ...
    @property
    def spi(self) -> Mapping[tuple[int, int], SpiTwin]: ...


class _I2cPort:
    """Operations on one adapter."""

    def __init__(self, twin: I2cTwin) -> None:
        self.twin = twin

    def run(self, operation: Operation) -> Reply:
        match operation:
            case Smbus(address, read, command, size, data, pec):
                return Reply(0, self.twin.smbus(address, int(read), command, size, data, pec))
            case Rdwr(messages):
                return Reply(len(messages), self._rdwr(messages))
        raise OSError(errno.ENOTTY, "not an operation of I2C")

    def _rdwr(self, messages: Sequence[I2cMessage]) -> bytes:
        """Messages to one address in a row are one transfer of its part."""
        received: list[bytes] = []
        for address, run in itertools.groupby(messages, key=lambda m: m.address):
            received += self.twin.transfer(address, [(m.flags, m.length if m.is_read else m.data) for m in run])
        return b"".join(received)


class _SpiPort:
    """Operations on one chip select."""

    def __init__(self, twin: SpiTwin) -> None:
        self.twin = twin

    def run(self, operation: Operation) -> Reply:
        if not isinstance(operation, Spi):
            raise OSError(errno.ENOTTY, "not an operation of SPI")
        payload = self._frames(operation.mode, operation.transfers)
        return Reply(len(payload), payload)

    def _frames(self, mode: int, transfers: Sequence[SpiTransfer]) -> bytes:
        """Chip select rises only after a transfer with `cs_change`; until then all is one frame for the part."""
        out, frame = b"", b""
        for i, t in enumerate(transfers):
            frame += t.tx if t.tx is not None else bytes(t.length)
            if t.cs_change or i == len(transfers) - 1:
                out += self.twin.transfer(frame, mode, t.hz) if frame else b""
                frame = b""
        return out


class Buses:
    """One module's buses. `serve` is a plain function of a request."""

    def __init__(self, module: str, twins: BusTwins) -> None:
        self._module = module
        self._twins = twins

    def serve(self, request: Request) -> Reply:
        """Errors become negative statuses; HANG means: ask again later."""
        try:
            port = self._find(request)
            if isinstance(request.operation, Open):
                return Reply(0)
            return Reply(HANG) if port.twin.hanging() else port.run(request.operation)
        except OSError as e:
            return Reply(-(e.errno or errno.EIO))
        except Exception:
            log.exception("%s: %s failed", request.path, type(request.operation).__name__)
            return Reply(-errno.EIO)

    def hanging(self, request: Request) -> bool:
        return self._find(request).twin.hanging()

    def _find(self, request: Request) -> _I2cPort | _SpiPort:
        """Raises OSError(ENOENT) for a device that the module does not have."""
        if request.module == self._module:
            if match := _I2C.fullmatch(request.path):
                i2c = self._twins.i2c.get(int(match[1]))
                if i2c is not None:
                    return _I2cPort(i2c)
            elif match := _SPI.fullmatch(request.path):
                spi = self._twins.spi.get((int(match[1]), int(match[2])))
                if spi is not None:
                    return _SpiPort(spi)
        raise OSError(errno.ENOENT, f"{request.module} has no {request.path}")


class _Connection(asyncio.Protocol):
    """One device of one supervisor."""

    def __init__(self, buses: Buses, connections: set[_Connection]) -> None:
        self._buses = buses
        self._connections = connections
        self._frames = Frames()
        self._waiting: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._waiting is not None:
            self._waiting.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                self._serve(decode_request(body))
        except ProtocolError as e:
            log.warning("connection closed: %s", e)
            self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _serve(self, request: Request) -> None:
        reply = self._buses.serve(request)
        if reply.status == HANG:
            self._wait(request)
        self._send(reply)

    def _wait(self, request: Request) -> None:
        self._waiting = asyncio.get_running_loop().call_later(HANG_LOOK_S, self._look, request)

    def _look(self, request: Request) -> None:
        """The bus hung when this was asked. When it is free again the controller gives up; nothing was transferred."""
        if self._buses.hanging(request):
            self._wait(request)
        else:
            self._send(Reply(-errno.ETIMEDOUT))

    def _send(self, reply: Reply) -> None:
        if self._transport is not None:
            self._transport.write(encode_reply(reply))


class BusServer:
    """Serves one module's buses on a Unix socket."""

    def __init__(self, module: str, twins: BusTwins, path: Path) -> None:
        self._buses = Buses(module, twins)
        self._path = path
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def start(self) -> None:
        """Listen, in place of a socket that a dead world left. Raises OSError."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: _Connection(self._buses, self._connections), str(self._path)
        )
        os.chmod(self._path, 0o660)

    async def close(self) -> None:
        """Stop listening and drop all connections; transfers under way end with EIO at the supervisor."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()
        self._path.unlink(missing_ok=True)
