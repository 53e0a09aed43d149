"""Light-on level of a transmitter: her own laser through filter, interferometer, modulators and shutter to her own
photodiodes (reference control C, pair A2). Nothing leaves but what the attenuator at its maximum lets through, and for
its own check what leaves in service.
"""

from __future__ import annotations

from collections.abc import Sequence

from calibration.procedures.laser import FREQUENCY_LIMIT_HZ, LIVE_A, POWER_LIMIT_DB
from drivers.roles import LaserReading
from qmodd.selftest import alice_cables
from qmodd.selftest.alice_chain import HEATER_NAMES, MODULATORS, Chain, as_found, dark_mode
from qmodd.selftest.alice_elements import element_findings
from qmodd.selftest.bench import Bench
from qmodd.selftest.heater_checks import resistances
from qmodd.selftest.model import Check, Finding, Level, Limits
from qmodd.selftest.tec_checks import ON_CHECKS


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
    await laser.enable(True)
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
