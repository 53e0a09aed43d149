"""The real libraries, opened the way the buses want them."""

from __future__ import annotations

import functools
import socket
from typing import Any, cast

from drivers.bus.libraries import Libraries, SerialLike, SmbusLike, SocketLike, SpiLike, VisaLike

CHUNK = 1 << 20
CONNECT_S = 2.0
HISLIP_PORT = 4880


def real_libraries() -> Libraries:
    """Openers over smbus2, spidev, pyserial, pyvisa with pyvisa-py, and sockets. Each library is imported when its
    first device is opened, so that a module without such a bus does not pay for it."""
    return Libraries(i2c=_i2c, spi=_spi, serial=_serial, visa=_visa, tcp=_tcp)


def _i2c(number: int) -> SmbusLike:
    from smbus2 import SMBus

    return cast(SmbusLike, SMBus(number))


def _spi(bus: int, select: int) -> SpiLike:
    from spidev import SpiDev

    spi = SpiDev()
    spi.open(bus, select)
    return cast(SpiLike, spi)


def _serial(path: str, baudrate: int) -> SerialLike:
    from serial import Serial

    return cast(SerialLike, Serial(path, baudrate, timeout=1.0, write_timeout=1.0, exclusive=True))


@functools.cache
def _manager() -> Any:
    """One resource manager a process; making one scans the back-ends, which takes a while."""
    import pyvisa

    return pyvisa.ResourceManager("@py")


def _visa(resource: str) -> VisaLike:
    _must_listen(resource)
    session = _manager().open_resource(resource)
    session.chunk_size = CHUNK
    if resource.upper().endswith("::SOCKET"):
        # A raw socket has no message boundaries: a line ends at its newline.
        session.read_termination = "\n"
    return cast(VisaLike, session)


def _must_listen(resource: str) -> None:
    """Raise OSError if nobody listens at a HiSLIP resource's port.

    pyvisa-py reports that as "resource not found" after leaving its half-made sockets to the garbage collector; asking
    first gives the real reason and leaks nothing.
    """
    from pyvisa.rname import TCPIPInstr, parse_resource_name

    parsed = parse_resource_name(resource)
    if isinstance(parsed, TCPIPInstr) and parsed.lan_device_name.lower().startswith("hislip"):
        port = int(parsed.lan_device_name.partition(",")[2] or HISLIP_PORT)
        socket.create_connection((parsed.host_address, port), timeout=CONNECT_S).close()


def _tcp(host: str, port: int) -> SocketLike:
    sock = socket.create_connection((host, port), timeout=CONNECT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
