"""Safe state and the hardware watchdog line.

The line is a GPIO on a bus of its own: it is toggled only while every loop has checked in, so a dead core, a hung bus
or a stuck loop drops laser and heater rails within half a second without any software having to act.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from drivers.errors import DriverError
from drivers.roles import DigitalIO

# Low while the cover is off; not every module has the line.
COVER = "cover_closed"


class CheckIns(Protocol):
    def late(self) -> list[str]:
        """Names of loops that have not checked in within their deadline, each with how late it is."""
        ...


class SafeDevice(Protocol):
    name: str

    async def make_safe(self) -> None: ...


class WatchdogStarved(Exception):
    """A loop did not check in, or the hardware says that no rail may be on; the rails were dropped."""


class InterlockOpen(WatchdogStarved):
    """The interlock loop is open. `cover`: because the module's cover is."""

    def __init__(self, why: str, cover: bool) -> None:
        super().__init__(why)
        self.cover = cover


class HardwareTripped(WatchdogStarved):
    """The hardware watchdog has struck although the daemon runs: it was too slow."""


@dataclass
class Watchdog:
    """Toggles the watchdog line while all loops check in."""

    platform: DigitalIO
    check_ins: CheckIns
    period_s: float
    _level: bool = field(default=False, init=False)
    _toggled_s: float | None = field(default=None, init=False)
    longest_gap_s: float = field(default=0.0, init=False)

    async def run(self) -> None:
        """Raises WatchdogStarved, after dropping the enable lines where the platform's bus still lets it."""
        try:
            await self._run()
        except DriverError as e:
            raise WatchdogStarved(f"rails left to the hardware watchdog: the platform's port expander: {e}") from e

    async def _run(self) -> None:
        while True:
            await self.toggle()
            await asyncio.sleep(self.period_s)
            if late := self.check_ins.late():
                await drop_enables(self.platform)
                raise WatchdogStarved(f"rails dropped: no sign of life from {', '.join(late)}")
            if await self.platform.read("watchdog_tripped"):
                raise HardwareTripped(
                    "rails dropped by the hardware watchdog: its line was not toggled in time; the longest pause "
                    f"between toggles was {self.longest_gap_s:.2f} s"
                )
            try:
                await check_interlock(self.platform)
            except WatchdogStarved:
                await drop_enables(self.platform)
                raise

    async def toggle(self) -> None:
        self._level = not self._level
        await self.platform.write("watchdog", self._level)
        now = asyncio.get_running_loop().time()
        if self._toggled_s is not None:
            self.longest_gap_s = max(self.longest_gap_s, now - self._toggled_s)
        self._toggled_s = now


async def check_interlock(platform: DigitalIO) -> None:
    """Raises InterlockOpen when the cover or the interlock loop is open: no rail may be on. The board cuts the laser by
    itself for either; this is for the heaters, and for the reason."""
    if COVER in platform.lines and not await platform.read(COVER):
        raise InterlockOpen("rails off: the cover is open", cover=True)
    if not await platform.read("interlock_ok"):
        raise InterlockOpen("rails off: the interlock loop is open", cover=False)


async def drop_enables(platform: DigitalIO) -> None:
    """Laser and heater rails off. Both lines are tried even if one fails; the first error is raised."""
    faults: list[DriverError] = []
    for line in ("laser_enable", "heater_enable"):
        try:
            await platform.write(line, False)
        except DriverError as e:
            faults.append(e)
    if faults:
        raise faults[0]


async def safe_state(
    platform: DigitalIO | None, devices: Sequence[SafeDevice], report: Callable[[str, str], None], deadline_s: float
) -> None:
    """Rails first, then every output to its safe value, all devices at once; what fails is reported, never hidden.

    The temperature controller's safe value is to hold: it comes last, by `qmodd.safety.ramp`.
    """

    async def one(name: str, action: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(deadline_s):
                await action()
        except (DriverError, TimeoutError) as e:
            report(name, f"could not be brought to its safe value: {str(e) or 'no answer in time'}")

    if platform is not None:
        await one("platform", lambda: drop_enables(platform))
    async with asyncio.TaskGroup() as group:
        for device in devices:
            group.create_task(one(device.name, device.make_safe), name=f"safe {device.name}")
