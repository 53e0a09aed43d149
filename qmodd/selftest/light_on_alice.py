"""Light-on level of a transmitter: her own laser through filter, interferometer, modulators and shutter to her own
photodiodes (reference control C, pair A2).

What leaves is at most what leaves in service, on average over a sweep: the attenuator is at its maximum, the shutter
closed, and the carver dims what an open shutter would pass. Only while it is not known yet where the shutter closes,
during the first second, single settings of a search pass up to twice as much. An attenuator that is stuck open is met
with the carver closed, and neither opens any more; before that the search itself lets out less than 1 uW.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from calibration.procedures.laser import FREQUENCY_LIMIT_HZ, LIVE_A, POWER_LIMIT_DB
from drivers.roles import LaserReading
from qmodd.selftest import alice_cables
from qmodd.selftest.alice_chain import HEATER_NAMES, MODULATORS, Chain, as_found, dark_mode
from qmodd.selftest.alice_elements import element_findings
from qmodd.selftest.bench import Bench
from qmodd.selftest.heater_checks import resistances
from qmodd.selftest.model import Check, Finding, Level, Limits
from qmodd.selftest.tec_checks import ON_CHECKS

# A laser tunes and settles within some seconds.
LASER_S = 10.0


async def light_findings(bench: Bench) -> list[Finding]:
    """About 10 s. Outputs are as found afterwards, laser included; the symbol source drives nothing."""
    found: list[Finding] = []

    async def work(chain: Chain) -> None:
        await resistances(bench)
        reading = await _laser_on(chain)
        found.extend(_laser(chain, reading, await chain.settled(64)))
        if not all(f.ok for f in found if f.name in ("laser_emits", "laser_seen")):
            return
        await chain.walk()
        for name in MODULATORS:
            await chain.record(name)
        for name in HEATER_NAMES:
            await chain.record(name)
        found.extend(await _cables(chain))
        found.extend(await element_findings(chain, reading))

    await as_found(bench, work)
    return found


async def _laser_on(chain: Chain) -> LaserReading:
    """At its working point, with the source dark and dark currents taken before."""
    laser, settings = chain.bench.context.need_laser(), chain.bench.context.settings
    await laser.enable(False)
    await dark_mode(chain.bench)
    await chain.bench.context.settle()
    await chain.zero()
    await laser.set_frequency(settings.laser_frequency_hz)
    await laser.set_power(settings.laser_power_dbm)
    try:
        async with asyncio.timeout(LASER_S):
            await laser.enable(True)
    except TimeoutError:
        # What it says of itself is judged; nothing waits for it any longer.
        return replace(await laser.read(), emitting=False)
    return await laser.read()


def _laser(chain: Chain, reading: LaserReading, seen: dict[str, float]) -> list[Finding]:
    settings, part = chain.bench.context.settings, chain.bench.part("laser")
    needs = (chain.bench.bus("laser"), chain.bench.part("platform"), "interlock", "cover", "supply")
    hint = f"status 0x{reading.status:04X}, {', '.join(reading.alarms) or 'no alarm'}"
    off_hz, off_db = reading.frequency_hz - settings.laser_frequency_hz, reading.power_dbm - settings.laser_power_dbm
    lit = max(seen.values())
    return [
        Finding("laser_emits", float(reading.emitting), "", Limits.exactly(1.0), part, needs, hint),
        Finding("laser_alarms", float(len(reading.alarms)), "", Limits.exactly(0.0), part, needs, hint),
        Finding(
            "laser_frequency", off_hz, "Hz", Limits.around(0.0, FREQUENCY_LIMIT_HZ), part, needs, "off its channel"
        ),
        Finding("laser_power", off_db, "dB", Limits.around(0.0, POWER_LIMIT_DB), part, needs, "off its setting"),
        Finding("laser_seen", lit, "A", Limits(low=LIVE_A), part, (*needs, "path laser"), "no photodiode sees it"),
    ]


async def _cables(chain: Chain) -> list[Finding]:
    """Exchanged cables by what moves what; the rest of the level goes by what is really there."""
    heaters = alice_cables.heaters_exchanged(chain.sweeps)
    modulators = alice_cables.modulators_exchanged(chain.sweeps)
    chain.act = alice_cables.renamed((*HEATER_NAMES, *MODULATORS), [*heaters, *modulators])
    real = {e: chain.sweeps[a] for e, a in chain.act.items()}
    diodes = alice_cables.diodes_exchanged(real, await chain.read())
    chain.see = alice_cables.renamed(chain.diodes, diodes)
    return [
        *alice_cables.findings("heater", heaters, HEATER_NAMES),
        *alice_cables.findings("modulator", modulators, MODULATORS),
        *alice_cables.findings("photodiode", diodes, chain.diodes),
    ]


async def _light(bench: Bench) -> Sequence[Finding]:
    return await light_findings(bench)


CHECKS: tuple[Check, ...] = (
    Check(
        "transmitter light",
        Level.LIGHT_ON,
        _light,
        ("laser", "symbol_source", "bias_dac", "heater_dac", "monitor_adc"),
        sides=("alice",),
        after=("monitor_adc", "symbol_source", "interlock", "platform"),
        budget_s=28.0,
    ),
    *ON_CHECKS,
)
