"""The port expander's lines: outputs followed to their pins where that does no harm, and what the inputs say."""

from __future__ import annotations

from drivers.instruments.snspd import Snspd
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Check, Finding, Level, Limits, skipped
from qmodd.selftest.power_on_common import NONE, YES, device, guarded, of_device, through

# The watchdog's line is toggled beside this check; both levels are seen within a few of its periods.
LOOKS = 24
PULSE_S = 0.02
UNBIASED_A = 1e-6
# Outputs that may be switched while the laser itself is off and no heater is driven.
WALKED = ("led", "laser_enable")


async def lines(bench: Bench) -> list[Finding]:
    """Each output low and high and back; a pin that does not follow is stuck."""
    return await guarded(bench, "platform", "lines", _lines(bench))


async def _lines(bench: Bench) -> list[Finding]:
    out = []
    for line in WALKED:
        if line in bench.module.platform.lines and (line != "laser_enable" or await _laser_off(bench)):
            out.append(await _walk(bench, line))
    out.append(await _toggling(bench))
    return out


async def _laser_off(bench: Bench) -> bool:
    """Without a laser its line leads nowhere."""
    return not bench.has("laser") or not (await bench.module.laser.read()).emitting


async def _walk(bench: Bench, line: str) -> Finding:
    platform = bench.module.platform
    before = await platform.read(line)
    seen: list[str] = []
    try:
        for level in (not before, before, not before):
            await platform.write(line, level)
            await bench.sleep(PULSE_S)
            if await platform.read(line) is not level:
                seen.append(f"{'low' if level else 'high'} after it was set {'high' if level else 'low'}")
    finally:
        await platform.write(line, before)
    return of_device(bench, "platform", f"line.{line}", len(seen), NONE, "errors", "; ".join(seen))


async def _toggling(bench: Bench) -> Finding:
    period_s = bench.module.config.safety.watchdog_period_s
    levels = set()
    for _ in range(LOOKS):
        levels.add(await bench.module.platform.read("watchdog"))
        if len(levels) == 2:
            break
        await bench.sleep(period_s / 4.0)
    hint = "the pin stands still while it is toggled: the hardware watchdog will trip"
    return of_device(bench, "platform", "line.watchdog", len(levels), Limits.exactly(2.0), "levels", hint)


async def inputs(bench: Bench) -> list[Finding]:
    """Interlock loop, cover, watchdog, and the lines of the receiver's instruments."""
    return await guarded(bench, "platform", "inputs", _inputs(bench))


async def _inputs(bench: Bench) -> list[Finding]:
    out = []
    for line, wanted, part, hint in (
        ("interlock_ok", True, "interlock", "the interlock loop is open: cover, key switch or a loose contact"),
        ("cover_closed", True, "interlock", "the cover is open, or its contact does not close"),
        ("watchdog_tripped", False, bench.part("platform"), "the hardware watchdog has taken the rails down"),
    ):
        if line in bench.module.platform.lines:
            out.append(await _level(bench, line, wanted, part, hint))
    if "cryostat_ok" in bench.module.platform.lines:
        part = bench.part("cryostat") if bench.has("cryostat") else "cryostat"
        out.append(await _level(bench, "cryostat_ok", True, part, "the cryostat's controller says that it is not cold"))
    if "detectors_unbiased" in bench.module.platform.lines and bench.has("detectors"):
        out.append(await _unbiased(bench))
    return out


async def _level(bench: Bench, line: str, wanted: bool, part: str, hint: str) -> Finding:
    level = float(await bench.module.platform.read(line))
    return through(bench, ["platform"], part, f"input.{line}", level, YES if wanted else NONE, hint=hint)


async def _unbiased(bench: Bench) -> Finding:
    """Only with no bias set can it be told what the line should be; biases are not taken away for it."""
    bank = device(bench, "detectors")
    currents: tuple[float, ...] = bank.bias() if isinstance(bank, Snspd) else ()
    if not currents or max(currents) > UNBIASED_A:
        return skipped("input.detectors_unbiased", bench.part("detectors"), "the detectors are biased")
    hint = "no bias is set, and the controller's line says that there is one"
    return await _level(bench, "detectors_unbiased", True, bench.part("detectors"), hint)


CHECKS: tuple[Check, ...] = (
    Check("lines", Level.POWER_ON, lines, parts=("platform", "laser")),
    Check("inputs", Level.POWER_ON, inputs, parts=("platform",)),
)
