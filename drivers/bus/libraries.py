"""Where a bus gets its library object from: the real libraries in production, in-process doubles in simulated time.

The Protocols below are the part of each library that the buses use, with the library's own names, so that the real
class satisfies them as it is. `sim` offers doubles with the same methods; neither side imports the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class SmbusLike(Protocol):
    """smbus2.SMBus: `pec` is 0 or 1; errors are OSError."""

    pec: int

    def read_byte_data(self, i2c_addr: int, register: int, force: bool | None = None) -> int: ...
    def write_byte_data(self, i2c_addr: int, register: int, value: int, force: bool | None = None) -> None: ...
    def read_word_data(self, i2c_addr: int, register: int, force: bool | None = None) -> int: ...
    def write_word_data(self, i2c_addr: int, register: int, value: int, force: bool | None = None) -> None: ...
    def read_i2c_block_data(
        self, i2c_addr: int, register: int, length: int, force: bool | None = None
    ) -> list[int]: ...
    def write_i2c_block_data(
        self, i2c_addr: int, register: int, data: Sequence[int], force: bool | None = None
    ) -> None: ...
    def i2c_rdwr(self, *i2c_msgs: Any) -> None: ...  # smbus2.i2c_msg objects
    def close(self) -> None: ...


class SpiLike(Protocol):
    """spidev.SpiDev after open(): `mode` 0..3, `max_speed_hz`; xfer2 keeps chip select low over the whole transfer."""

    mode: int
    max_speed_hz: int

    def xfer2(self, values: Sequence[int]) -> Sequence[int]: ...
    def close(self) -> None: ...


class SerialLike(Protocol):
    """serial.Serial opened non-exclusively or exclusively; `timeout` is the read timeout in seconds."""

    timeout: float | None

    def write(self, b: bytes, /) -> int | None: ...
    def read(self, size: int = 1, /) -> bytes: ...
    def read_until(self, expected: bytes = b"\n", size: int | None = None) -> bytes: ...
    def reset_input_buffer(self) -> None: ...
    def close(self) -> None: ...


class VisaLike(Protocol):
    """pyvisa.resources.MessageBasedResource: `timeout` in milliseconds; read_raw returns one whole message."""

    timeout: float
    chunk_size: int

    def write_raw(self, message: bytes) -> int: ...
    def read_raw(self, size: int | None = None) -> bytes: ...
    def clear(self) -> None: ...
    def close(self) -> None: ...


class SocketLike(Protocol):
    """socket.socket, connected; recv returns b"" when the far end closed."""

    def settimeout(self, value: float | None, /) -> None: ...
    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, bufsize: int, /) -> bytes: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Libraries:
    """Openers, one a kind of bus. Each may block and raises OSError (VISA: also pyvisa's VisaIOError) on failure.

    i2c(bus_number); spi(bus, device); serial(path, baudrate); visa(resource); tcp(host, port).
    `threaded` is False where a call may run in place on the event loop (simulated time).
    """

    i2c: Callable[[int], SmbusLike]
    spi: Callable[[int, int], SpiLike]
    serial: Callable[[str, int], SerialLike]
    visa: Callable[[str], VisaLike]
    tcp: Callable[[str, int], SocketLike]
    threaded: bool = True
