"""All buses of a module: made on demand, shared by address, one owner an address."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from drivers.bus.address import (
    Address,
    AddressError,
    I2cAddress,
    SerialAddress,
    SpiAddress,
    TcpAddress,
    VisaAddress,
    parse_address,
)
from drivers.bus.i2c import I2cBus, I2cDevice
from drivers.bus.lane import Lane
from drivers.bus.libraries import Libraries
from drivers.bus.serial import SerialLine
from drivers.bus.spi import SpiBus
from drivers.bus.tcp import TcpPort
from drivers.bus.visa import VisaInstrument
from drivers.roles import BusCounters

A = TypeVar("A", I2cAddress, SpiAddress, SerialAddress, VisaAddress, TcpAddress)
AnyBus = I2cBus | SpiBus | SerialLine | VisaInstrument | TcpPort


class BusPool:
    """Gives drivers their buses. Making a bus touches no hardware: the first transaction opens it.

    `clock` gives monotonic seconds. Every method raises AddressError for a string of another kind of bus and for an
    address that another device has.
    """

    def __init__(self, libraries: Libraries, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._libraries = libraries
        self._owners: dict[str, str] = {}
        self._buses: dict[str, AnyBus] = {}
        self._i2c: dict[int, I2cBus] = {}

    def i2c(self, address: str, owner: str, *, pec: bool = False) -> I2cDevice:
        """A device on an adapter that it may share with others."""
        where = self._claim(address, owner, I2cAddress)
        bus = self._i2c.get(where.bus)
        if bus is None:
            bus = self._i2c[where.bus] = I2cBus(where.bus, self._libraries.i2c, self._lane(f"i2c:{where.bus}"))
            self._buses[bus.lane.name] = bus
        return I2cDevice(bus, where.device, str(where), pec=pec)

    def spi(self, address: str, owner: str, *, mode: int, max_hz: int = 1_000_000) -> SpiBus:
        where = self._claim(address, owner, SpiAddress)
        lane = self._lane(str(where))
        bus = SpiBus(str(where), lambda: self._libraries.spi(where.bus, where.select), lane, mode=mode, max_hz=max_hz)
        self._buses[lane.name] = bus
        return bus

    def serial(self, address: str, owner: str, *, baudrate: int) -> SerialLine:
        where = self._claim(address, owner, SerialAddress)
        lane = self._lane(str(where))
        line = SerialLine(str(where), lambda: self._libraries.serial(where.path, baudrate), lane)
        self._buses[lane.name] = line
        return line

    def visa(self, address: str, owner: str) -> VisaInstrument:
        where = self._claim(address, owner, VisaAddress)
        lane = self._lane(str(where))
        instrument = VisaInstrument(str(where), lambda: self._libraries.visa(where.resource), lane)
        self._buses[lane.name] = instrument
        return instrument

    def tcp(self, address: str, owner: str) -> TcpPort:
        where = self._claim(address, owner, TcpAddress)
        lane = self._lane(str(where))
        port = TcpPort(str(where), lambda: self._libraries.tcp(where.host, where.port), lane)
        self._buses[lane.name] = port
        return port

    def counters(self) -> dict[str, BusCounters]:
        """Counters by bus name: `i2c:1`, `spi:0.0`, `serial:/dev/tec`, ..."""
        return {name: bus.lane.counters for name, bus in self._buses.items()}

    def hung(self) -> list[str]:
        """Names of buses whose worker is inside a call that has passed its deadline."""
        return [name for name, bus in self._buses.items() if bus.lane.hung]

    async def close(self) -> None:
        """Close every bus. A bus that hangs is left behind."""
        for bus in self._buses.values():
            await bus.close()

    def _lane(self, name: str) -> Lane:
        return Lane(name, self.clock, threaded=self._libraries.threaded)

    def _claim(self, address: str, owner: str, kind: type[A]) -> A:
        where: Address = parse_address(address)
        if not isinstance(where, kind):
            raise AddressError(f"{owner}: address {address!r} is of another kind of bus")
        key = str(where)
        if key in self._owners:
            raise AddressError(f"{owner}: address {key} is already taken by {self._owners[key]}")
        self._owners[key] = owner
        return where
