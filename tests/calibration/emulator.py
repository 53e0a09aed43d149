"""One pair on the emulator in simulated time: the real drivers, over in-process doubles of the bus libraries."""

from __future__ import annotations

import asyncio
import math
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
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
from sim.clock import CallbackClock
from sim.individuals import factory_record
from sim.inproc import InprocLibraries
from sim.loop import SimulatedLoop
from sim.rig import Rig
from sim.scenario import Scenario
from sim.truth import Truth
from sim.world import World

CONFIGS = Path(__file__).parents[2] / "configs"
ADDRESSES = {
    "serial:/dev/ttyTEC": "serial:tec",
    "serial:/dev/ttyLASER": "serial:laser",
    "tcp:192.168.10.3:12000": "tcp:snspd:12000",
}
# What the drivers need beyond what the reference configuration says.
BOARD: dict[str, dict[str, Any]] = {
    "ltc2672": {"max_current_a": 0.033},
    "ina228": {"shunt_ohm": 0.05, "max_current_a": 0.5},
    "pca9535": {
        "lines": {
            "watchdog": {"port": 0, "bit": 0, "direction": "out"},
            "laser_enable": {"port": 0, "bit": 1, "direction": "out"},
            "heater_enable": {"port": 0, "bit": 2, "direction": "out"},
            "interlock_ok": {"port": 1, "bit": 0},
            "watchdog_tripped": {"port": 1, "bit": 1},
        }
    },
}
VISA = {"source": "visa:source", "tags": "visa:tagger"}


def _address(device: dict[str, Any]) -> str:
    return VISA.get(device["role"], ADDRESSES.get(device["address"], device["address"]))


def _options(device: dict[str, Any]) -> dict[str, Any]:
    options = BOARD.get(device["driver"], {}) | device.get("options", {})
    if "counts_address" in options:
        options["counts_address"] = "tcp:snspd:12345"
    return options


@dataclass
class Side:
    """One module: its drivers by role, and the context of its calibrations."""

    name: str
    roles: dict[str, Any]
    context: CalibrationContext

    async def keep_alive(self) -> None:
        level = False
        while True:
            level = not level
            await self.roles["platform"].write("watchdog", level)
            await self.roles["tec"].read()  # it has a watchdog of its own
            await asyncio.sleep(0.1)


@dataclass
class AliceLight:
    """What the transmitter's engine does for the receiver: its attenuator about the calibrated setting."""

    alice: CalibrationContext

    async def set(self, mode: LightMode, state: int = 0, intensity: int = 0, photons_scale: float = 1.0) -> None:
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


@asynccontextmanager
async def pair(loop: SimulatedLoop, seed: int, loss_db: float = 10.0) -> AsyncIterator[Pair]:
    """Both modules open, rails on, at temperature."""
    start = {"alice_c": 29.9, "bob_c": 29.9}
    clock = CallbackClock(loop.time_source)
    world = World(Scenario.from_mapping({"seed": seed, "link": {"loss_db": loss_db}, "start": start}), clock)
    now = LoopClock(loop)
    sides = [_side(name, port, clock, now, loop) for name, port in (("alice", world.alice), ("bob", world.bob))]
    sides[1].context.light = AliceLight(sides[0].context)
    async with asyncio.TaskGroup() as group:
        tasks = []
        for side in sides:
            for device in side.roles.values():
                await device.open()
            tasks.append(group.create_task(side.keep_alive()))
            await side.roles["platform"].write("heater_enable", True)
            await side.roles["platform"].write("laser_enable", True)
            await TecLoop(side.roles["tec"], ThermalConfig(stable_k=0.05), now).wait_stable(asyncio.sleep, 300.0)
        yield Pair(world, Truth(world), sides[0], sides[1], now)
        for task in tasks:
            task.cancel()


def _side(name: str, port: Any, clock: CallbackClock, now: LoopClock, loop: SimulatedLoop) -> Side:
    libraries = InprocLibraries(Rig(port, clock=clock, factory_analog=port.individual.monitors))
    pool = BusPool(
        Libraries(libraries.i2c, libraries.spi, libraries.serial, libraries.visa, libraries.tcp, threaded=False),
        loop.time,
    )
    config = tomllib.loads((CONFIGS / f"{name}.toml").read_text())
    roles = {d["role"]: create(d["driver"], d["name"], _address(d), pool, _options(d)) for d in config["device"]}
    context = CalibrationContext(
        side=name,  # type: ignore[arg-type]
        factory=FactoryRecord.from_mapping(factory_record(port.individual)),
        clock=now,
        store=RecordStore(),
        settings=Settings(),
        **{k: v for k, v in roles.items() if k != "platform"},
    )
    return Side(name, roles, context)
