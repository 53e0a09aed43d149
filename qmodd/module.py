"""The module as its functional elements: who plays which role, built from the configuration and the registry."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from drivers.bus.pool import BusPool
from drivers.errors import DriverError
from drivers.registry import create
from drivers.roles import (
    AnalogInputs,
    DetectorBank,
    Device,
    DigitalIO,
    HeaterBank,
    Identity,
    Laser,
    Rail,
    SymbolSource,
    TagSource,
    TemperatureController,
    TemperatureSensor,
    VoltageBank,
)
from qmodd.config import Config


class BringUpFailed(Exception):
    """One line a device that could not be opened; the module stays dark."""


@dataclass
class Module:
    """Devices by role. Building touches no bus; `open` does.

    Raises drivers.errors.DriverError or ValueError on a wrong driver name or option.
    """

    config: Config
    buses: BusPool
    devices: dict[str, Device] = field(default_factory=dict)
    identities: dict[str, Identity] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for d in self.config.device:
            self.devices[d.role] = create(d.driver, d.name, d.address, self.buses, d.options)

    async def open(self) -> dict[str, Identity]:
        """Open and identify everything; the platform first, so that the rails are known to be off.

        Raises BringUpFailed naming every device that failed.
        """
        self.identities = {"platform": await self._open("platform")}
        faults: list[str] = []

        async def one(role: str) -> None:
            try:
                self.identities[role] = await self._open(role)
            except BringUpFailed as e:
                faults.append(str(e))

        async with asyncio.TaskGroup() as group:
            for role in self.devices:
                if role != "platform":
                    group.create_task(one(role), name=f"open {role}")
        if faults:
            raise BringUpFailed("; ".join(sorted(faults)))
        return self.identities

    async def _open(self, role: str) -> Identity:
        device = self.devices[role]
        try:
            return await device.open()
        except DriverError as e:
            raise BringUpFailed(f"{device.name}: {e}") from e

    async def close(self) -> None:
        for device in reversed(list(self.devices.values())):
            await device.close()
        await self.buses.close()

    def outputs(self) -> Iterator[Device]:
        """Devices with outputs, in the order in which they are made safe."""
        for role in ("laser", "heaters", "source", "biases", "detectors", "tec"):
            if role in self.devices:
                yield self.devices[role]

    def _role(self, name: str) -> Any:
        try:
            return self.devices[name]
        except KeyError:
            raise LookupError(f"{self.config.module.role} {self.config.module.serial} has no {name}") from None

    @property
    def heaters(self) -> HeaterBank:
        return cast(HeaterBank, self._role("heaters"))

    @property
    def biases(self) -> VoltageBank:
        return cast(VoltageBank, self._role("biases"))

    @property
    def adc(self) -> AnalogInputs:
        return cast(AnalogInputs, self._role("adc"))

    @property
    def rail(self) -> Rail:
        return cast(Rail, self._role("rail"))

    @property
    def submount(self) -> TemperatureSensor:
        return cast(TemperatureSensor, self._role("submount"))

    @property
    def platform(self) -> DigitalIO:
        return cast(DigitalIO, self._role("platform"))

    @property
    def tec(self) -> TemperatureController:
        return cast(TemperatureController, self._role("tec"))

    @property
    def laser(self) -> Laser:
        return cast(Laser, self._role("laser"))

    @property
    def source(self) -> SymbolSource:
        return cast(SymbolSource, self._role("source"))

    @property
    def tags(self) -> TagSource:
        return cast(TagSource, self._role("tags"))

    @property
    def detectors(self) -> DetectorBank:
        return cast(DetectorBank, self._role("detectors"))
