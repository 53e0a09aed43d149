"""One pair on the emulator in simulated time, without the application: the real drivers over in-process doubles of the
bus libraries, one calibration context a module. Benchmarks and tests start from here."""

from __future__ import annotations

import asyncio
import math
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from calibration.context import CalibrationContext, LightRefused, Settings
from calibration.factory import FactoryRecord
from calibration.store import RecordStore
from drivers.bus.libraries import Libraries
from drivers.bus.pool import BusPool
from drivers.registry import create
from drivers.roles import LightMode
from qmodd.clock import LoopClock
from qmodd.control.thermal import TecLoop, ThermalConfig
from qmodd.demo.compose import shipped
from sim.clock import CallbackClock
from sim.individuals import factory_record
from sim.inproc import InprocLibraries
from sim.loop import SimulatedLoop
from sim.rig import Rig, build_rigs
from sim.scenario import Scenario
from sim.truth import Truth
from sim.world import World

ADDRESSES = {
    "serial:/dev/ttyTEC": "serial:tec",
    "serial:/dev/ttyLASER": "serial:laser",
    "tcp:192.168.10.3:12000": "tcp:snspd:12000",
}
VISA = {"source": "visa:source", "tags": "visa:tagger", "counter": "visa:counter", "cryostat": "visa:cryostat"}
NO_CALIBRATION_USES = ("platform", "supply", "fru", "counter", "cryostat")
STABLE_K = 0.05
STABLE_WITHIN_S = 300.0


@dataclass
class Side:
    """One module: its drivers by role, and the context of its calibrations."""

    name: str
    roles: dict[str, Any]
    context: CalibrationContext

    async def keep_alive(self) -> None:
        """Feed the watchdogs of rails and TEC controller."""
        level = False
        while True:
            level = not level
            await self.roles["platform"].write("watchdog", level)
            await self.roles["tec"].read()
            await asyncio.sleep(0.1)

    async def power_up(self, clock: LoopClock) -> None:
        """Rails on, laser allowed, TEC at its target."""
        await self.roles["platform"].write("heater_enable", True)
        await self.roles["platform"].write("laser_enable", True)
        await TecLoop(self.roles["tec"], ThermalConfig(stable_k=STABLE_K), clock).wait_stable(
            asyncio.sleep, STABLE_WITHIN_S
        )


@dataclass
class AliceLight:
    """What the transmitter's engine does for the receiver: its attenuator about the calibrated setting."""

    alice: CalibrationContext

    async def set(self, mode: LightMode, state: int = 0, intensity: int = 0, photons_scale: float = 1.0) -> None:
        """Raises LightRefused when the attenuator's table does not reach so far."""
        table, record = self.alice.factory.voa, self.alice.record("mean_photon").value
        assert table is not None
        try:
            volts = table.voltage(record["voa_db"] - 10.0 * math.log10(photons_scale))
        except ValueError as e:
            raise LightRefused(str(e)) from e
        await self.alice.biases.set_voltage("voa", volts)
        await self.alice.need_source().set_mode(mode, state, intensity)


@dataclass
class Pair:
    world: World
    truth: Truth
    alice: Side
    bob: Side
    clock: LoopClock


def scenario(seed: int, loss_db: float = 10.0, **sections: Any) -> Scenario:
    """A pair that starts next to its working temperature. sections: further parts of a scenario, by name."""
    raw: dict[str, Any] = {"seed": seed, "start": {"alice_c": 29.9, "bob_c": 29.9}, **sections}
    raw["link"] = {"loss_db": loss_db, **sections.get("link", {})}
    return Scenario.from_mapping(raw)


@asynccontextmanager
async def pair(
    loop: SimulatedLoop, world_of: Scenario, settings: Mapping[str, Any] | None = None, *, powered: bool = True
) -> AsyncIterator[Pair]:
    """Both modules open, rails on, at temperature; powered False: open only. settings: of the calibrations, where they
    differ."""
    clock, now = CallbackClock(loop.time_source), LoopClock(loop)
    world = World(world_of, clock)
    chosen = Settings(**(settings or {}))
    rigs = build_rigs(world, clock)
    alice, bob = (_side(rigs[p.name], p, now, loop, world_of, chosen) for p in (world.alice, world.bob))
    bob.context.light = AliceLight(alice.context)
    async with asyncio.TaskGroup() as group:
        tasks = []
        for side in (alice, bob):
            for device in side.roles.values():
                await device.open()
            tasks.append(group.create_task(side.keep_alive()))
            if powered:
                await side.power_up(now)
        yield Pair(world, Truth(world), alice, bob, now)
        for task in tasks:
            task.cancel()


def _side(rig: Rig, port: Any, now: LoopClock, loop: SimulatedLoop, world_of: Scenario, settings: Settings) -> Side:
    doubles = InprocLibraries(rig)
    libraries = Libraries(doubles.i2c, doubles.spi, doubles.serial, doubles.visa, doubles.tcp, threaded=False)
    pool = BusPool(libraries, loop.time)
    text = shipped(f"{rig.name}.toml")
    if world_of.modules.ballast:
        text = text.replace("spare = 4", "ballast = 4")
    config = tomllib.loads(text)
    roles: dict[str, Any] = {
        d["role"]: create(d["driver"], d["name"], _address(d), pool, _options(d)) for d in config["device"]
    }
    side: Any = rig.name
    context = CalibrationContext(
        side=side,
        factory=FactoryRecord.from_mapping(factory_record(port.individual, world_of.seed)),
        clock=now,
        store=RecordStore(),
        settings=settings,
        **{role: device for role, device in roles.items() if role not in NO_CALIBRATION_USES},
    )
    return Side(rig.name, roles, context)


def _address(device: dict[str, Any]) -> str:
    return VISA.get(device["role"]) or ADDRESSES.get(device["address"], str(device["address"]))


def _options(device: dict[str, Any]) -> dict[str, Any]:
    options = dict(device.get("options", {}))
    if "counts_address" in options:
        options["counts_address"] = "tcp:snspd:12345"
    return options
