"""Address strings: `i2c:1:0x48`, `spi:0.0`, `serial:/dev/tec`, `visa:TCPIP::...`, `tcp:host:port`."""

from __future__ import annotations

import re
from dataclasses import dataclass


class AddressError(ValueError):
    """An address string that cannot be read, or one that is already taken."""


@dataclass(frozen=True)
class I2cAddress:
    bus: int
    device: int

    def __str__(self) -> str:
        return f"i2c:{self.bus}:0x{self.device:02x}"


@dataclass(frozen=True)
class SpiAddress:
    bus: int
    select: int

    def __str__(self) -> str:
        return f"spi:{self.bus}.{self.select}"


@dataclass(frozen=True)
class SerialAddress:
    path: str

    def __str__(self) -> str:
        return f"serial:{self.path}"


@dataclass(frozen=True)
class VisaAddress:
    resource: str

    def __str__(self) -> str:
        return f"visa:{self.resource}"


@dataclass(frozen=True)
class TcpAddress:
    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp:{self.host}:{self.port}"


Address = I2cAddress | SpiAddress | SerialAddress | VisaAddress | TcpAddress

_I2C = re.compile(r"(\d{1,3}):(0[xX][0-9a-fA-F]{1,2})")
_SPI = re.compile(r"(\d{1,3})\.(\d{1,3})")
_TCP = re.compile(r"(\S+):(\d{1,5})")


def parse_address(text: str) -> Address:
    """Read an address string. Raises AddressError that says what a right one looks like."""
    kind, _, rest = text.partition(":")
    if kind == "i2c" and (m := _I2C.fullmatch(rest)):
        device = int(m[2], 16)
        # 0x00-0x02 and 0x78-0x7F are reserved by the I2C specification (UM10204, table 4).
        if 0x03 <= device <= 0x77:
            return I2cAddress(int(m[1]), device)
    elif kind == "spi" and (m := _SPI.fullmatch(rest)):
        return SpiAddress(int(m[1]), int(m[2]))
    elif kind == "serial" and rest:
        return SerialAddress(rest)
    elif kind == "visa" and rest:
        return VisaAddress(rest)
    elif kind == "tcp" and (m := _TCP.fullmatch(rest)) and 0 < int(m[2]) < 65536:
        return TcpAddress(m[1], int(m[2]))
    raise AddressError(
        f"address {text!r} is none of i2c:BUS:0xADDR (0x03 to 0x77), spi:BUS.SELECT, serial:PATH, visa:RESOURCE, "
        "tcp:HOST:PORT"
    )
