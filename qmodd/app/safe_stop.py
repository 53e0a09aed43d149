"""Brings one module to its safe state and keeps it there: after a session, while nothing may run, while nothing is in.

The rails drop first, then every output goes to its safe value, then the hardware is asked whether that is so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from drivers.errors import DriverError
from qmodd.app.failures import reason
from qmodd.app.safekeeping import NOT_SAFE, Safekeeping
from qmodd.app.wiring import Wiring
from qmodd.lifecycle import LONGEST_WHY, Activity, Operational
from qmodd.module import Module
from qmodd.safety import contradictions, safe_state
from qmodd.safety.ramp import HOLD_S

SAFE_DEADLINE_S = 0.8
# How often a module that was pulled is looked for.
OUT_POLL_S = 1.0
# How often what could not be brought to its safe value is tried again.
AGAIN_S = 0.5


@dataclass
class SafeStop:
    """`made_safe`: every output has been brought to its safe value since the rails were on, or could not be.

    `hardware` is held by whoever opens, makes safe and closes the devices outside of a session: one at a time.
    """

    wiring: Wiring
    safekeeping: Safekeeping
    made_safe: bool = True
    hardware: asyncio.Lock = field(default_factory=asyncio.Lock)
    _unconfirmed: set[str] = field(default_factory=set)

    async def after_session(self, module: Module | None, why: str, failed: bool) -> None:
        """`module` is that of the session, None where nothing was opened; `failed`: it did not end on purpose."""
        self._say(why)
        async with self.hardware:
            if module is not None:
                await self.outputs(module, why)
                await self.safekeeping.confirm_cover()
                if failed:
                    await self.safekeeping.last_look()
                self.safekeeping.ramp.begin(why, HOLD_S)
            await self.wiring.stop_keying(why)
            if module is not None:
                await module.close()

    async def dark(self, why: str, log_bugs: Callable[[BaseException], None]) -> None:
        """Make sure, on the hardware, that a module that may not run is dark; say so if that cannot be done."""
        self._say(why)
        module = self.wiring.module
        async with self.hardware:
            try:
                await module.open()
            except Exception as e:
                log_bugs(e)
                self.wiring.life.set_operational(Operational.DISABLED, f"{why}; and {reason(e)}")
            finally:
                await self.outputs(module, why)
                await module.close()
        # Nobody will try again by himself: no reason to keep the chip warm.
        self.safekeeping.ramp.begin(why, hold_s=0.0)

    async def wait_while_out(self) -> bool:
        """A module that was pulled is looked for until one is there; whether that was so."""
        bay, module = self.wiring.bay, self.wiring.module
        if not await bay.look_whether_out():
            await module.close()
            return False
        self._say(
            f"the photonic module ({bay.serial or 'not seen yet'}) is out: no part of it answers; waiting for one"
        )
        while await bay.look_whether_out():
            await module.close()
            await asyncio.sleep(OUT_POLL_S)
        await module.close()
        return True

    def _say(self, why: str) -> None:
        self.wiring.life.set_operational(Operational.DISABLED, why)
        self.wiring.life.set_activity(Activity.SAFE, why)

    async def outputs(self, module: Module, why: str) -> None:
        """All of them, whatever happens to one."""
        self._unconfirmed.clear()
        for device in module.outputs():
            self.wiring.life.inhibit(device.name, why)

        def not_safe(name: str, what: str) -> None:
            self._not_safe(name, what, why)

        await safe_state(module.platform, list(module.outputs()), not_safe, SAFE_DEADLINE_S)
        self.safekeeping.lit, self.made_safe = False, True
        # What cannot be asked has been reported where it could not be switched; its enable line is low by its own word.
        on, _silent = await contradictions(module)
        for name, what in on.items():
            self.safekeeping.latch(NOT_SAFE, what)
            not_safe(name, f"could not be brought to its safe value: {what}")

    async def pause(self, seconds: float, why: str) -> None:
        """Wait; meanwhile what did not answer is brought to its safe value as soon as it does."""
        now = self.wiring.clock.monotonic
        end = now() + seconds
        while (left := end - now()) > 0.0:
            await asyncio.sleep(min(AGAIN_S, left))
            if self._unconfirmed:
                async with self.hardware:
                    await self._again(why)

    async def _again(self, why: str) -> None:
        for device in self.wiring.module.outputs():
            if device.name not in self._unconfirmed:
                continue
            try:
                async with asyncio.timeout(SAFE_DEADLINE_S):
                    await device.open()
                    await device.make_safe()
            except (DriverError, TimeoutError):
                continue
            finally:
                await device.close()
            self._unconfirmed.discard(device.name)
            self.wiring.life.inhibit(device.name, why)

    def _not_safe(self, name: str, what: str, root: str) -> None:
        """In front what is to be done something about, behind it what it goes back to."""
        self._unconfirmed.add(name)
        self.wiring.life.inhibit(name, f"{what[:300]}; held off for: {root}"[:LONGEST_WHY])
        self.wiring.events.record("output.not_confirmed_safe", {"output": name, "why": what})
