"""In-process doubles of smbus2, spidev, pyserial, pyvisa and socket over a rig, for simulated time.

They have the libraries' own method names and errors, so that a bus which works with the library works with the double.
Bus time is not modelled: a reply that is due within the caller's time-out is there at once; one that is not raises the
library's time-out at once, for waiting would stop the clock that it waits for.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyvisa import constants
from pyvisa.errors import VisaIOError
from serial import SerialException

from sim.chips import slots
from sim.chips.slots import I2cBus, Message, SpiSlot
from sim.clock import SimClock
from sim.instruments.ports import CountsPort, ScpiPort
from sim.instruments.stream import StreamLine
from sim.rig import Rig

SNSPD_PORTS = {12000: "snspd", 12345: "snspd_counts"}


class InprocSmbus:
    """smbus2.SMBus. Errors are OSError, as the kernel's."""

    def __init__(self, bus: I2cBus) -> None:
        self.pec = 0
        self._bus = bus

    def _smbus(self, address: int, read: int, command: int, size: int, data: bytes = b"") -> bytes:
        return self._bus.smbus(address, read, command, size, data, bool(self.pec))

    def write_quick(self, i2c_addr: int, force: bool | None = None) -> None:
        self._smbus(i2c_addr, 0, 0, slots.QUICK)

    def read_byte(self, i2c_addr: int, force: bool | None = None) -> int:
        return self._smbus(i2c_addr, 1, 0, slots.BYTE)[0]

    def write_byte(self, i2c_addr: int, value: int, force: bool | None = None) -> None:
        self._smbus(i2c_addr, 0, value, slots.BYTE)

    def read_byte_data(self, i2c_addr: int, register: int, force: bool | None = None) -> int:
        return self._smbus(i2c_addr, 1, register, slots.BYTE_DATA)[0]

    def write_byte_data(self, i2c_addr: int, register: int, value: int, force: bool | None = None) -> None:
        self._smbus(i2c_addr, 0, register, slots.BYTE_DATA, bytes([value]))

    def read_word_data(self, i2c_addr: int, register: int, force: bool | None = None) -> int:
        return int.from_bytes(self._smbus(i2c_addr, 1, register, slots.WORD_DATA)[:2], "little")

    def write_word_data(self, i2c_addr: int, register: int, value: int, force: bool | None = None) -> None:
        self._smbus(i2c_addr, 0, register, slots.WORD_DATA, value.to_bytes(2, "little"))

    def read_i2c_block_data(self, i2c_addr: int, register: int, length: int, force: bool | None = None) -> list[int]:
        if length > slots.BLOCK_MAX:
            raise ValueError(f"Desired block length over {slots.BLOCK_MAX} bytes")
        data = self._smbus(i2c_addr, 1, register, slots.I2C_BLOCK, bytes([length]))
        return list(data[1 : 1 + data[0]])

    def write_i2c_block_data(
        self, i2c_addr: int, register: int, data: Sequence[int], force: bool | None = None
    ) -> None:
        if len(data) > slots.BLOCK_MAX:
            raise ValueError(f"Data length cannot exceed {slots.BLOCK_MAX} bytes")
        self._smbus(i2c_addr, 0, register, slots.I2C_BLOCK, bytes([len(data), *data]))

    def i2c_rdwr(self, *i2c_msgs: Any) -> None:
        """smbus2.i2c_msg objects; what is read lands in their buffers."""
        for address, group in itertools.groupby(i2c_msgs, key=lambda m: int(m.addr)):
            run = list(group)
            reads = [m for m in run if m.flags & slots.I2C_M_RD]
            messages: list[Message] = [(m.flags, m.len if m.flags & slots.I2C_M_RD else bytes(list(m))) for m in run]
            for message, data in zip(reads, self._bus.transfer(address, messages), strict=True):
                ctypes.memmove(message.buf, data, len(data))

    def close(self) -> None:
        """Nothing to release."""


class InprocSpi:
    """spidev.SpiDev after open()."""

    def __init__(self, slot: SpiSlot) -> None:
        self.mode = 0
        self.max_speed_hz = 500_000
        self.bits_per_word = 8
        self._slot = slot

    def xfer2(
        self, values: Iterable[int], speed_hz: int = 0, delay_usecs: int = 0, bits_per_word: int = 0
    ) -> list[int]:
        return list(self._slot.transfer(bytes(values), self.mode, speed_hz or self.max_speed_hz))

    def xfer(self, values: Iterable[int], speed_hz: int = 0, delay_usecs: int = 0, bits_per_word: int = 0) -> list[int]:
        return self.xfer2(values, speed_hz)

    def writebytes(self, values: Iterable[int]) -> None:
        self.xfer2(values)

    def readbytes(self, n: int) -> list[int]:
        return self.xfer2(bytes(n))

    def close(self) -> None:
        """Nothing to release."""


class InprocSerial:
    """serial.Serial, open. SerialException while the instrument is unplugged."""

    def __init__(self, line: StreamLine, clock: SimClock, timeout: float | None = None) -> None:
        self.timeout = timeout
        self.is_open = True
        self._line = line
        self._clock = clock
        self._buffer = bytearray()

    def _check(self) -> None:
        if not self.is_open:
            raise SerialException("Attempting to use a port that is not open")
        if not self._line.present:
            self._buffer.clear()
            raise SerialException(errno.EIO, f"{self._line.name}: input/output error")

    def _receive(self, enough: Callable[[], bool]) -> None:
        """Take what has come; unless it is enough, wait (at no cost) for what comes within the time-out."""
        self._check()
        self._buffer += self._line.take()
        horizon = math.inf if self.timeout is None else self._clock.now() + self.timeout
        while not enough() and self._line.due is not None and self._line.due <= horizon:
            more = self._line.take(self._line.due)
            if not more:
                break
            self._buffer += more

    def write(self, b: bytes, /) -> int:
        self._check()
        self._line.feed(bytes(b))
        return len(b)

    def read(self, size: int = 1, /) -> bytes:
        self._receive(lambda: len(self._buffer) >= size)
        return self._cut(size)

    def read_until(self, expected: bytes = b"\n", size: int | None = None) -> bytes:
        def end() -> int:
            found = self._buffer.find(expected)
            whole = len(self._buffer) if found < 0 else found + len(expected)
            return whole if size is None else min(whole, size)

        def enough() -> bool:
            return expected in self._buffer or (size is not None and len(self._buffer) >= size)

        self._receive(enough)
        return self._cut(end())

    def _cut(self, count: int) -> bytes:
        out = bytes(self._buffer[:count])
        del self._buffer[:count]
        return out

    @property
    def in_waiting(self) -> int:
        self._receive(lambda: True)
        return len(self._buffer)

    def reset_input_buffer(self) -> None:
        self._check()
        self._line.take()
        self._buffer.clear()

    def reset_output_buffer(self) -> None:
        """What was written is out already."""

    def flush(self) -> None:
        """What was written is out already."""

    def close(self) -> None:
        self.is_open = False


class InprocVisa:
    """pyvisa.resources.MessageBasedResource. VisaIOError for time-outs and a lost connection."""

    def __init__(self, port: ScpiPort, clock: SimClock) -> None:
        self.timeout = 2000.0
        self.chunk_size = 20 * 1024
        self._port = port
        self._clock = clock
        self._responses: deque[tuple[float, bytes]] = deque()
        self._open = True

    def _check(self) -> None:
        if not self._open:
            raise VisaIOError(constants.StatusCode.error_invalid_object)
        if not self._port.present:
            raise VisaIOError(constants.StatusCode.error_connection_lost)

    def write_raw(self, message: bytes) -> int:
        self._check()
        response = self._port.execute(bytes(message))
        if response is not None:
            self._responses.append((self._clock.now() + self._port.late_s, response))
        return len(message)

    def read_raw(self, size: int | None = None) -> bytes:
        """One whole message, however long."""
        self._check()
        horizon = self._clock.now() + self.timeout / 1000.0
        if not self._responses or self._responses[0][0] > horizon:
            raise VisaIOError(constants.StatusCode.error_timeout)
        return self._responses.popleft()[1]

    def clear(self) -> None:
        """Device clear: unread responses are gone."""
        self._check()
        self._responses.clear()

    def close(self) -> None:
        self._open = False


class InprocSocket:
    """socket.socket, connected to a command port or to the stream of counts."""

    def __init__(self, endpoint: StreamLine | CountsPort, clock: SimClock) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._timeout: float | None = None
        self._buffer = bytearray()
        self._open = True
        if isinstance(endpoint, CountsPort):
            endpoint.stream_lines(clock.now())  # lines from before the connection go to nobody

    def settimeout(self, value: float | None, /) -> None:
        self._timeout = value

    def sendall(self, data: bytes, /) -> None:
        self._check()
        if not self._endpoint.present:
            raise ConnectionResetError(errno.ECONNRESET, "connection reset by peer")
        if isinstance(self._endpoint, StreamLine):
            self._endpoint.feed(bytes(data))

    def recv(self, bufsize: int, /) -> bytes:
        """b"" where the instrument has gone; TimeoutError (BlockingIOError with time-out 0) where nothing comes."""
        self._check()
        if not self._endpoint.present:
            return b""
        if not self._buffer:
            self._buffer += self._incoming()
        if not self._buffer:
            raise BlockingIOError(errno.EAGAIN, "nothing to read") if self._timeout == 0 else TimeoutError("timed out")
        out = bytes(self._buffer[:bufsize])
        del self._buffer[:bufsize]
        return out

    def _incoming(self) -> bytes:
        now = self._clock.now()
        horizon = math.inf if self._timeout is None else now + self._timeout
        if isinstance(self._endpoint, CountsPort):
            lines = self._endpoint.stream_lines(now)
            if not lines and self._endpoint.next_line <= horizon:
                lines = self._endpoint.stream_lines(self._endpoint.next_line)
            return lines
        data = self._endpoint.take()
        due = self._endpoint.due
        return self._endpoint.take(due) if not data and due is not None and due <= horizon else data

    def _check(self) -> None:
        if not self._open:
            raise OSError(errno.EBADF, "bad file descriptor")

    def close(self) -> None:
        self._open = False


class InprocLibraries:
    """Openers over one rig, named as in drivers' `Libraries`: calls may run in place (`threaded` is False).

    Names: I2C bus number; SPI (bus, device); serial "tec", "laser"; VISA "source", "tagger", "counter", "cryostat"; TCP
    "snspd" 12000, 12345.
    What does not exist raises OSError, as opening a device file or a refused connection would.
    """

    threaded = False

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._clock = rig.clock

    def i2c(self, bus: int) -> InprocSmbus:
        return InprocSmbus(_existing(self._rig.i2c, bus, f"/dev/i2c-{bus}"))

    def spi(self, bus: int, device: int) -> InprocSpi:
        return InprocSpi(_existing(self._rig.spi, (bus, device), f"/dev/spidev{bus}.{device}"))

    def serial(self, path: str, baudrate: int = 9600) -> InprocSerial:
        line: StreamLine = _existing(self._rig.serial, path, path)
        if not line.present:
            raise SerialException(errno.ENOENT, f"could not open port {path}")
        return InprocSerial(line, self._clock)

    def visa(self, resource: str) -> InprocVisa:
        return InprocVisa(_existing(self._rig.scpi, resource, resource), self._clock)

    def tcp(self, host: str, port: int) -> InprocSocket:
        name = SNSPD_PORTS.get(port, "") if host == "snspd" else ""
        endpoint = self._rig.tcp.get(name)
        if endpoint is None or not endpoint.present:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"{host}:{port} refused")
        return InprocSocket(endpoint, self._clock)


def _existing(endpoints: Any, key: Any, path: str) -> Any:
    if key not in endpoints:
        raise FileNotFoundError(errno.ENOENT, "no such device", path)
    return endpoints[key]
