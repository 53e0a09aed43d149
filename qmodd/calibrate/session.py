"""A module brought up for its calibrations only: devices, watchdog, rails, temperature; no keys, no network.

The same pieces as in the daemon. Whatever ends it, the rails drop and every output goes to its safe value.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from calibration.context import CalibrationContext, LightRefused, LightService
from drivers.errors import DriverError, Refused
from drivers.roles import LightMode
from qmodd.app.alice import AliceOperator
from qmodd.app.core import Core, Injected
from qmodd.app.failures import EXPECTED, LoopGaveUp, leaves, reason
from qmodd.app.identify import firmware_sha256
from qmodd.app.late import Late
from qmodd.app.safe_stop import SAFE_DEADLINE_S
from qmodd.calibrate.walk import REFUSED, UNREACHABLE
from qmodd.clock import SystemClock
from qmodd.config import Config
from qmodd.control.loop import Scheduler
from qmodd.door_core import DoorCore
from qmodd.keys.kernels import InlineKernels
from qmodd.lifecycle import Administrative
from qmodd.module import BringUpFailed
from qmodd.randomness import SystemRandomness
from qmodd.safety import Watchdog, check_interlock, safe_state

NO_PEER = "no transmitter: without the daemon there is no service channel to ask for its light"


class Locked(Exception):
    """The module is administratively locked: nothing may be switched on."""


class NoPeer:
    """The transmitter's light where there is none to ask."""

    async def set(self, mode: LightMode, state: int = 0, intensity: int = 0, photons_scale: float = 1.0) -> None:
        """Raises LightRefused, always."""
        raise LightRefused(NO_PEER)


class PeerLight:
    """The light of a transmitter in the same process, calibrated and in service; what its engine would do."""

    def __init__(self, alice: AliceOperator) -> None:
        self._alice = alice

    async def set(self, mode: LightMode, state: int = 0, intensity: int = 0, photons_scale: float = 1.0) -> None:
        """Raises LightRefused with the transmitter's reason."""
        try:
            await self._alice.light(mode, state, intensity, photons_scale)
        except Refused as e:
            raise LightRefused(str(e)) from e


def hardware_core(config: Config) -> Core:
    """A core on the host's own buses, not running and without a door: for commands beside the daemon. The caller closes
    it."""
    from drivers.bus.real import real_libraries

    randomness = SystemRandomness()

    async def no_door(door: DoorCore) -> None:
        raise RuntimeError("the door is not served without the daemon")

    injected = Injected(
        real_libraries(), SystemClock(), randomness, InlineKernels(randomness), DoorCore, no_door, True, True
    )
    return Core(config, injected)


@asynccontextmanager
async def opened(
    core: Core, operator: str, light: LightService | None = None, say: Callable[[str], None] = lambda _text: None
) -> AsyncIterator[CalibrationContext]:
    """Rails on, on the way to temperature (`warm`), records and readings where the daemon keeps them. `operator` goes
    into the records.

    Raises Locked before anything is touched; BringUpFailed, NotReady, LoopGaveUp, WatchdogStarved or a
    drivers.errors.DriverError, alone or in a group.
    """
    life, module, own = core.wiring.life, core.wiring.module, core.operator
    if life.administrative is Administrative.LOCKED:
        raise Locked(f"{core.config.module.serial} is locked ({life.why('administrative')}); `unlock` it first")
    if latched := own.dark_latch():
        raise Locked(f"{core.config.module.serial} stays dark ({latched}); `clear-latch` it first")
    context = own.context(module)
    context.operator = operator
    if core.config.module.role == "bob":
        context.light = light or NoPeer()
    failed = False
    try:
        async with asyncio.TaskGroup() as group:
            say("opening and identifying the devices")
            identities = await module.open()
            context.firmware_sha256 = firmware_sha256(identities)
            own.check_parts(module)
            await core.wiring.bay.identify(identities, context)
            tasks = await _start(core, context, group)
            yield context
            for task in tasks:
                task.cancel()
    except BaseException as e:
        failed = True
        own.safekeeping.ended(e)
        raise
    finally:
        own.in_service = False
        await safe_state(
            module.platform,
            list(module.outputs()),
            lambda name, what: say(f"{name} {what}"),
            SAFE_DEADLINE_S,
        )
        own.safekeeping.lit = False
        if failed:
            await own.safekeeping.last_look()
        await own.safekeeping.leave_tec("calibrated")
        await module.close()


async def warm(core: Core, say: Callable[[str], None]) -> None:
    """Wait until the chip is at its temperature. Raises NotReady when that takes too long."""
    say("bringing the chip to temperature")
    begun = core.wiring.clock.monotonic()
    await core.operator.warm_up()
    say(f"at temperature after {core.wiring.clock.monotonic() - begun:.0f} s")


async def _start(core: Core, context: CalibrationContext, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
    """Watchdog first, then the rails, then the interlocks and the loop that holds the temperature."""
    module, wiring = core.wiring.module, core.wiring

    async def gave_up(loop: str, why: str) -> None:
        raise LoopGaveUp(f"loop {loop}: {why}")

    scheduler = Scheduler(wiring.clock, asyncio.sleep, gave_up)
    watchdog = Watchdog(module.platform, Late(scheduler, wiring.clock.monotonic), core.config.safety.watchdog_period_s)
    await watchdog.toggle()
    await check_interlock(module.platform)
    tasks = [group.create_task(watchdog.run(), name="watchdog")]
    await core.operator.ramp.release()
    await core.operator.rails_on(module)
    core.operator.forget_interrupts()
    core.operator.safekeeping.watch(scheduler)
    tasks.append(group.create_task(core.operator.interrupted(), name="interlocks"))
    core.operator.add_tec_loop(scheduler, module, context)
    tasks.append(group.create_task(scheduler.run(), name="loops"))
    return tasks


def failure(error: Exception) -> tuple[str, int]:
    """What to say of what ended a session, and the exit status for it. A bug is raised again."""
    found = list(leaves(error))
    if not all(isinstance(leaf, EXPECTED) for leaf in found):
        raise error
    unreachable = any(isinstance(leaf, DriverError | BringUpFailed) for leaf in found)
    return reason(error), UNREACHABLE if unreachable else REFUSED
