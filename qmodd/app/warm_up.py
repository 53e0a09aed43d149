"""The wait until a chip is at its temperature."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from drivers.roles import TecReading
from qmodd.app.failures import NotReady
from qmodd.app.wiring import Wiring
from qmodd.lifecycle import Activity

WARM_UP_S = 300.0
WARM_K = 0.1
# Passing through on the way up does not count.
WARM_FOR_S = 2.5


async def warm_up(wiring: Wiring, last: Callable[[], TecReading | None], within: Callable[[float], bool]) -> None:
    """Wait until the chip is near its temperature. Raises NotReady when that takes too long. `last`: the temperature
    loop's reading; `within`: whether it is so many kelvin from its target.

    The first calibrations (currents, photodiodes, modulators, detectors) do not feel the last tenth of a kelvin; the
    interferometers, which do, come last and are held by their lock.
    """
    now = wiring.clock.monotonic
    end, since = now() + WARM_UP_S, now()
    target_c = wiring.config.control.tec_target_c
    while now() - since < WARM_FOR_S:
        if not within(WARM_K):
            since = now()
        reading = last()
        if reading is not None:
            why = f"temperature {reading.object_c:.0f} C on its way to {target_c:.1f} C"
            wiring.life.set_activity(Activity.CALIBRATING, why)
        if now() > end:
            raise NotReady(f"the chip is not at its temperature after {WARM_UP_S:.0f} s: {reading}")
        await asyncio.sleep(0.5)
