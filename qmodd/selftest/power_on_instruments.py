"""Instruments as they see themselves: status, error queues, clocks, and inputs that are silent in the dark."""

from __future__ import annotations

from drivers.instruments.counter import Counter
from drivers.instruments.cryostat import Cryostat
from drivers.instruments.snspd import Snspd
from drivers.instruments.time_tagger import TimeTagger
from drivers.roles import TecState
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Check, Finding, Level, Limits, skipped
from qmodd.selftest.power_on_common import NONE, YES, device, guarded, of_device

KELVIN = Limits(0.3, 3.2, 0.5, 3.0)
QUIET_HZ = Limits(0.0, 200.0)
GATE_S = 0.01
TICK_S = 0.5
RATE = Limits.around(1.0, 5e-3)
UNBIASED_A = 1e-6
PERIODS_S = (0.02, 0.05)
DEPTH = Limits(low=1e5)


async def tec(bench: Bench) -> list[Finding]:
    """No error, and an output within its limits."""
    return await guarded(bench, "tec", "tec", _tec(bench))


async def _tec(bench: Bench) -> list[Finding]:
    got = await bench.module.tec.read()
    hint = f"error {got.error} in its register 105: see its manual, then reset it"
    limit = bench.context.settings.tec_current_limit_a * 1.02
    return [
        of_device(bench, "tec", "tec_error", float(got.state is TecState.ERROR), NONE, hint=hint),
        of_device(bench, "tec", "tec_current", got.current_a, Limits(-limit, limit), "A", "beyond its own limit"),
    ]


async def laser(bench: Bench) -> list[Finding]:
    """No fault standing. That its enable line reaches it shows only while it emits."""
    if not bench.has("laser"):
        return [skipped("laser_faults", "laser", "this module has none")]
    return await guarded(bench, "laser", "laser", _laser(bench))


async def _laser(bench: Bench) -> list[Finding]:
    got = await bench.module.laser.read()
    faults = sum(not alarm.endswith(":DIS") for alarm in got.alarms)
    hint = f"status 0x{got.status:04x}: {', '.join(got.alarms)}"
    return [of_device(bench, "laser", "laser_faults", faults, NONE, "alarms", hint)]


async def queues(bench: Bench) -> list[Finding]:
    """Instruments with an error queue have nothing to tell that nobody has asked for."""
    out: list[Finding] = []
    for role in ("source", "tags", "counter"):
        if hasattr(device(bench, role), "errors"):
            out += await guarded(bench, role, f"error_queue.{bench.part(role)}", _queue(bench, role))
    return out


async def _queue(bench: Bench, role: str) -> list[Finding]:
    found: list[str] = await device(bench, role).errors()
    name = f"error_queue.{bench.part(role)}"
    return [of_device(bench, role, name, len(found), NONE, "errors", "; ".join(found)[:200])]


async def tagger(bench: Bench) -> list[Finding]:
    """Reference, memory, clock, and inputs that are silent without bias."""
    found = device(bench, "tags")
    if not isinstance(found, TimeTagger):
        return [skipped("tagger_reference", "time_tagger", "this module has none")]
    return await guarded(bench, "tags", "tagger", _tagger(bench, found))


async def _tagger(bench: Bench, found: TimeTagger) -> list[Finding]:
    locked = float(not await found.questionable() & 1)
    hint = "its reference input: cable, or the source of the reference"
    out = [of_device(bench, "tags", "tagger_reference_locked", locked, YES, hint=hint)]
    await found.run()
    try:
        begun, first, after = bench.clock.monotonic(), await found.now_ps(), bench.clock.monotonic()
        await bench.sleep(TICK_S)
        before, last, ended = bench.clock.monotonic(), await found.now_ps(), bench.clock.monotonic()
        counts = await found.counts()
        _, depth, _ = await found.fill()
        block = await found.read()
    finally:
        await found.stop()
    # It was read at some moment within each query: of the rates that this allows, the one nearest to nominal.
    seconds, shortest, longest = (last - first) * 1e-12, before - after, ended - begun
    rate = min(max(1.0, seconds / longest), seconds / shortest) if shortest > 0.0 else 0.0
    hint = "its clock runs faster or slower than this controller's"
    out.append(of_device(bench, "tags", "tagger_clock", rate, RATE, "of nominal", hint, ("clock",)))
    out.append(of_device(bench, "tags", "tagger_memory", depth, DEPTH, "records", "smaller than it should be"))
    out.append(of_device(bench, "tags", "tagger_gap", float(block.gap), NONE, hint="a block in the dark has a gap"))
    if not unbiased(bench):
        return out
    for channel, clicks in zip(bench.module.detectors.channels, counts.tolist(), strict=False):
        name = f"tagger_silence.{channel}"
        hint = "clicks although the detector has no bias: threshold, cable or input"
        needs = (bench.part("detectors"), bench.bus("detectors"))
        out.append(of_device(bench, "tags", name, clicks / longest, QUIET_HZ, "1/s", hint, needs))
    return out


def unbiased(bench: Bench) -> bool:
    """No detector has a bias, as the driver last set them; biases are never taken away for a check here."""
    bank = device(bench, "detectors")
    return isinstance(bank, Snspd) and max(bank.bias()) < UNBIASED_A


async def detectors(bench: Bench) -> list[Finding]:
    """Controller of the detectors: its properties follow, its stream of counts comes, and nothing counts unbiased."""
    bank = device(bench, "detectors")
    if not isinstance(bank, Snspd):
        return [skipped("detector_controller", "detectors", "this module has none")]
    return await guarded(bench, "detectors", "detectors", _detectors(bench, bank))


async def _detectors(bench: Bench, bank: Snspd) -> list[Finding]:
    out = []
    rates = [await bank.read_rates(period_s) for period_s in PERIODS_S]
    if unbiased(bench):
        volts = await bank.read_bias_voltage()
        worst = max(range(len(volts)), key=lambda i: abs(volts[i]))
        hint = f"{bank.channels[worst]}: a voltage although no bias is set"
        out.append(of_device(bench, "detectors", "detector_voltage", volts[worst], Limits.around(0.0, 0.05), "V", hint))
        fastest = max(float(r.max()) for r in rates)
        hint = "counts although no detector is biased: trigger level, or noise at the input"
        out.append(of_device(bench, "detectors", "detector_silence", fastest, QUIET_HZ, "1/s", hint))
    levels = await bank.label("TriggerLevel")
    number = len(levels) if isinstance(levels, list) else 0
    wanted = Limits(low=len(bank.channels))
    out.append(of_device(bench, "detectors", "detector_channels", number, wanted, "channels", f"says {levels!r}"))
    return out


async def counter(bench: Bench) -> list[Finding]:
    """A gate on each input that is used; nothing is counted while the detectors have no bias."""
    found = device(bench, "counter")
    if not isinstance(found, Counter):
        return [skipped("counter_silence", "counter", "this module has none")]
    return await guarded(bench, "counter", "counter", _counter(bench, found))


async def _counter(bench: Bench, found: Counter) -> list[Finding]:
    hertz = await found.count(GATE_S) / GATE_S
    if not unbiased(bench):
        return [of_device(bench, "counter", "counter_answers", float(hertz >= 0.0), YES)]
    needs = (bench.part("detectors"), bench.bus("detectors"))
    hint = "counts although the detectors have no bias: level, cable or input"
    return [of_device(bench, "counter", "counter_silence", hertz, QUIET_HZ, "1/s", hint, needs)]


async def cryostat(bench: Bench) -> list[Finding]:
    """Cold enough for the detectors, by a sensor that is sound, and its heater whole."""
    found = device(bench, "cryostat")
    if not isinstance(found, Cryostat):
        return [skipped("cryostat_temperature", "cryostat", "this module has none")]
    return await guarded(bench, "cryostat", "cryostat", _cryostat(bench, found))


async def _cryostat(bench: Bench, found: Cryostat) -> list[Finding]:
    got = await found.read()
    hint = "too warm for the detectors: compressor, helium, or heat load"
    fault = float(bool(got.heater_fault))
    return [
        of_device(bench, "cryostat", "cryostat_temperature", got.kelvin, KELVIN, "K", hint),
        of_device(bench, "cryostat", "cryostat_heater", fault, NONE, hint=got.heater_fault),
    ]


CHECKS: tuple[Check, ...] = (
    Check("tec", Level.POWER_ON, tec, parts=("tec",)),
    Check("laser", Level.POWER_ON, laser, parts=("laser", "platform"), sides=("alice",)),
    Check("error_queues", Level.POWER_ON, queues),
    Check("detectors", Level.POWER_ON, detectors, parts=("detectors",), sides=("bob",)),
    Check("tagger", Level.POWER_ON, tagger, parts=("time_tagger",), sides=("bob",)),
    Check("counter", Level.POWER_ON, counter, parts=("counter",), sides=("bob",)),
    Check("cryostat", Level.POWER_ON, cryostat, parts=("cryostat",), sides=("bob",)),
)
