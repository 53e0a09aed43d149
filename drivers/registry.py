"""Type name in the configuration -> driver class.

A driver is a class with a pydantic model `Options` and `__init__(name, address, buses, options)`; it satisfies
`drivers.roles.Device` and the protocol of its role. Making one touches no bus. Built-in drivers are listed here; others
come from installed packages by the entry-point group `qmodd.drivers`:

    [project.entry-points."qmodd.drivers"]
    my_voa = "my_package.voa:Voa"
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ValidationError

from drivers.bus.address import AddressError
from drivers.bus.pool import BusPool
from drivers.roles import Device

GROUP = "qmodd.drivers"
BUILT_IN = {
    "ads131m08": "drivers.chips.ads131m08:Ads131m08",
    "counter": "drivers.instruments.counter:Counter",
    "cryostat": "drivers.instruments.cryostat:Cryostat",
    "eeprom24c64": "drivers.chips.eeprom24c64:Eeprom24c64",
    "ina228": "drivers.chips.ina228:Ina228",
    "itla": "drivers.instruments.itla:Itla",
    "ltc2668": "drivers.chips.ltc2668:Ltc2668",
    "ltc2672": "drivers.chips.ltc2672:Ltc2672",
    "mecom_tec": "drivers.instruments.mecom_tec:MecomTec",
    "pca9535": "drivers.chips.pca9535:Pca9535",
    "pmbus": "drivers.chips.pmbus:PmbusSupply",
    "snspd": "drivers.instruments.snspd:Snspd",
    "symbol_source": "drivers.instruments.symbol_source:SymbolSource",
    "time_tagger": "drivers.instruments.time_tagger:TimeTagger",
    "tmp117": "drivers.chips.tmp117:Tmp117",
}


class RegistryError(ValueError):
    """The configuration of a device is wrong: unknown driver, option, or address. Names device and field."""


class DriverClass(Protocol):
    """What a driver's class must offer."""

    Options: ClassVar[type[BaseModel]]

    def __call__(self, name: str, address: str, buses: BusPool, options: Any) -> Device: ...


def known() -> dict[str, str]:
    """All type names and where their classes are; a built-in name cannot be taken over from outside."""
    outside = {entry.name: entry.value for entry in entry_points(group=GROUP)}
    return {**outside, **BUILT_IN}


def driver_class(driver: str) -> DriverClass:
    """Raises RegistryError that lists the known drivers, or says why one cannot be loaded."""
    places = known()
    if driver not in places:
        raise RegistryError(f"unknown driver {driver!r}; known are {', '.join(sorted(places))}")
    module, _, attribute = places[driver].partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
        options = found.Options
    except (ImportError, AttributeError) as error:
        raise RegistryError(f"driver {driver!r} cannot be loaded from {places[driver]}: {error}") from error
    if not (isinstance(options, type) and issubclass(options, BaseModel)):
        raise RegistryError(f"driver {driver!r}: Options of {places[driver]} is not a pydantic model")
    return found  # type: ignore[no-any-return]


def validate(driver: str, name: str, options: Mapping[str, Any]) -> BaseModel:
    """Options as the driver's model. Raises RegistryError naming each wrong field, its value and what is allowed."""
    model = driver_class(driver).Options
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        faults = "; ".join(_describe(fault) for fault in error.errors(include_url=False))
        raise RegistryError(f"device {name!r} (driver {driver}): {faults}") from error


def create(driver: str, name: str, address: str, buses: BusPool, options: Mapping[str, Any]) -> Device:
    """Make a driver; touches no bus. Raises RegistryError."""
    checked = validate(driver, name, options)
    try:
        return driver_class(driver)(name, address, buses, checked)
    except AddressError as error:
        raise RegistryError(f"device {name!r} (driver {driver}): {error}") from error


def _describe(fault: Any) -> str:
    """One line for one fault of a pydantic model."""
    field = ".".join(str(part) for part in fault["loc"]) or "options"
    text = fault["msg"].removeprefix("Value error, ")
    given = "" if fault["type"] in ("missing", "value_error") else f", not {fault['input']!r}"
    return f"{field}: {text}{given}"
