"""Outputs and readings of a module by name, in the units of their drivers: what can be leased, swept and read.

Outputs are `heater.phase`, `bias.voa`, `laser.power`, `tec.target`, `detector.DZ`; a name without a dot (`laser`)
stands for all outputs of that instrument, `attenuator` for `bias.voa`. Limits are those of the driver, nowhere else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from calibration.factory import FactoryRecord
from drivers.quantity import Quantity
from drivers.roles import Outputs
from qmodd.module import Module

Write = Callable[[float], Awaitable[None]]
Source = Callable[[], Awaitable[dict[str, float]]]

ALIASES = {"attenuator": "bias.voa", "detectors": "detector", "heaters": "heater", "biases": "bias"}
# Connected to nothing: whoever moves them takes nothing from the keys.
SPARE = "spare"
# What shows its open-circuit flag: a known answer.
SPARE_TEST_A = 1e-3
RATES_S = 0.1


@dataclass(frozen=True)
class Output:
    """One output. `quantity` tells limits and last value; `ramp_per_s` is how fast it may be moved (None: at once)."""

    name: str
    device: str
    quantity: Callable[[], Quantity]
    write: Write
    ramp_per_s: float | None = None

    @property
    def unit(self) -> str:
        return self.quantity().limits.unit

    @property
    def value(self) -> float:
        """Last value that the device took."""
        return self.quantity().value

    @property
    def keys_rest_on_it(self) -> bool:
        return not self.name.endswith(f".{SPARE}")


def catalogue(module: Module, ramp_c_per_s: float) -> dict[str, Output]:
    """Every output of a module whose driver tells its limits."""
    return {o.name: o for o in _outputs(module, ramp_c_per_s)}


def expand(name: str, outputs: Mapping[str, Output]) -> tuple[str, ...]:
    """Names of the outputs that a name or an alias stands for. Raises LookupError naming what there is."""
    name = ALIASES.get(name, name)
    found = (name,) if name in outputs else tuple(o for o in outputs if o.startswith(f"{name}."))
    if not found:
        raise LookupError(f"no output {name!r}; there are {', '.join(sorted(outputs))}")
    return found


def _outputs(module: Module, ramp_c_per_s: float) -> Iterator[Output]:
    heaters, biases, tec = module.heaters, module.biases, module.tec
    if isinstance(heaters, Outputs):
        for channel in heaters.channels:
            yield _output(f"heater.{channel}", "heaters", heaters, channel, _channel(heaters.set_current, channel))
    if isinstance(biases, Outputs):
        for channel in biases.channels:
            yield _output(f"bias.{channel}", "biases", biases, channel, _channel(biases.set_voltage, channel))
    if isinstance(tec, Outputs):
        yield _output("tec.target", "tec", tec, "target", tec.set_target, ramp_c_per_s)
    if module.config.module.role == "alice":
        yield from _laser(module)
    else:
        yield from _detectors(module)


def _output(
    name: str, device: str, driver: Outputs, channel: str, write: Write, ramp_per_s: float | None = None
) -> Output:
    return Output(name, device, lambda: driver.output(channel), write, ramp_per_s)


def _channel(write: Callable[[str, float], Awaitable[None]], channel: str) -> Write:
    return lambda value: write(channel, value)


def _laser(module: Module) -> Iterator[Output]:
    laser = module.laser
    if not isinstance(laser, Outputs):
        return
    yield _output("laser.power", "laser", laser, "power", laser.set_power)
    try:
        laser.output("fine")
    except KeyError:
        return  # a laser without fine tuning
    yield _output("laser.fine", "laser", laser, "fine", laser.set_fine_hz)


def _detectors(module: Module) -> Iterator[Output]:
    bank = module.detectors
    if not isinstance(bank, Outputs):
        return
    driver = cast(Outputs, bank)

    def write(channel: str) -> Write:
        async def one(amperes: float) -> None:
            present = {c: driver.output(c).value for c in bank.channels}
            await bank.set_bias([(present | {channel: amperes})[c] for c in bank.channels])

        return one

    for channel in bank.channels:
        yield _output(f"detector.{channel}", "detectors", driver, channel, write(channel))


@dataclass(frozen=True)
class Readings:
    """What can be read beside a sweep: `source.field`; one call a source gives all its fields of the same moment."""

    sources: Mapping[str, Source]
    units: Mapping[str, str]  # by reading

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.units)

    async def take(self, names: list[str]) -> list[float]:
        """The values in the order of the names, all of them known. Raises drivers.errors.DriverError."""
        found: dict[str, dict[str, float]] = {}
        for source in dict.fromkeys(name.partition(".")[0] for name in names):
            found[source] = await self.sources[source]()
        return [found[source][field] for source, _, field in (name.partition(".") for name in names)]


def readings(module: Module, factory: FactoryRecord, samples: int = 4) -> Readings:
    """Photodiodes as volts and as currents (factory's amplifier constants, dark current not taken off), rail, submount,
    temperature controller, laser; or detectors' rates over 0.1 s and bias voltages. `samples` conversions a reading."""
    sources: dict[str, Source] = {}
    units: dict[str, str] = {}

    def add(source: str, read: Source, fields: Mapping[str, str]) -> None:
        sources[source] = read
        units.update({f"{source}.{field}": unit for field, unit in fields.items()})

    async def volts() -> dict[str, float]:
        return await module.adc.read_volts(samples)

    diodes = [c for c in module.adc.channels if c in factory.photodiodes]

    async def currents() -> dict[str, float]:
        seen = await volts()
        return {c: factory.photodiode(c).current(seen[c]) for c in diodes}

    add("adc", volts, dict.fromkeys(module.adc.channels, "V"))
    add("photocurrent", currents, dict.fromkeys(diodes, "A"))
    add("rail", _attributes(module.rail.read, RAIL), RAIL)
    add("tec", _attributes(module.tec.read, TEC), TEC)

    async def submount() -> dict[str, float]:
        return {"celsius": await module.submount.read_celsius()}

    add("submount", submount, {"celsius": "C"})
    if module.config.module.role == "alice":
        add("laser", _attributes(module.laser.read, LASER), LASER)
    else:
        _add_detectors(module, add)
    return Readings(sources, units)


RAIL = {"bus_v": "V", "current_a": "A", "power_w": "W"}
TEC = {"object_c": "C", "sink_c": "C", "current_a": "A", "voltage_v": "V"}
LASER = {"power_dbm": "dBm", "frequency_hz": "Hz"}


def _attributes(read: Callable[[], Awaitable[object]], fields: Mapping[str, str]) -> Source:
    async def source() -> dict[str, float]:
        reading = await read()
        return {field: float(getattr(reading, field)) for field in fields}

    return source


def _add_detectors(module: Module, add: Callable[[str, Source, Mapping[str, str]], None]) -> None:
    bank = module.detectors

    async def rates() -> dict[str, float]:
        found = await bank.read_rates(RATES_S)
        return {c: float(r) for c, r in zip(bank.channels, found, strict=True)}

    async def volts() -> dict[str, float]:
        return dict(zip(bank.channels, await bank.read_bias_voltage(), strict=True))

    add("rate", rates, dict.fromkeys(bank.channels, "1/s"))
    add("bias_voltage", volts, dict.fromkeys(bank.channels, "V"))
