"""Random numbers: the transmitter's symbols as they leave its source, in the dark, and the system's generator.

The symbols that are looked at are spent: they are read once, the rest of their run is erased, nothing was emitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drivers.instruments.symbol_source import SymbolSource
from drivers.roles import LightMode
from qmodd.selftest import health
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Check, Finding, Level, Limits, skipped
from qmodd.selftest.power_on_common import NONE, YES, guarded, of_device
from qmodd.selftest.power_on_common import device as bare

SLOTS = 1 << 17
NOT_VALID = 8
# A run is stopped as soon as its symbols are there; the first of them need a moment on a slow bus.
FILL_S = 0.02
BITS = {"basis": 0, "value": 1, "decoy": 2}
SYSTEM_BYTES = 1 << 15
LAGS = (1, 2, 8)
# Twice the normal quantile of 2^-30: six and a quarter standard deviations.
LAG_Z = 6.3
# Sixteen levels of 2 pi/16 each: their standard deviation, pi/8 sqrt((16^2 - 1)/12).
RANDOMISER_RAD = math.pi / 8.0 * math.sqrt((16.0**2 - 1.0) / 12.0)
RANDOMISER = Limits.around(RANDOMISER_RAD, 0.1, 0.05)
TICK_S = 0.5
# Latency of two queries against half a second.
RATE = Limits.around(1.0, 5e-3)
QUESTIONS = (("reference_locked", 1), ("generator_healthy", 2), ("drives_in_range", 4))


@dataclass(frozen=True)
class Drawn:
    """Symbols of one run and the probabilities that the source says it uses."""

    nibbles: npt.NDArray[np.uint8]
    p_x: float
    p_decoy: float

    def bits(self, name: str) -> health.Samples:
        return (self.nibbles >> BITS[name] & 1).astype(np.uint8)

    def p(self, name: str) -> float:
        """Probability of a one."""
        return {"basis": self.p_x, "value": 0.5, "decoy": self.p_decoy}[name]


async def source(bench: Bench) -> list[Finding]:
    """Status, clock and randomiser of the source, then its symbols. Nothing while a run is on or the laser is lit."""
    return await guarded(bench, "source", "symbols", _source(bench))


async def _source(bench: Bench) -> list[Finding]:
    device = bench.module.source
    if bench.has("laser") and (await bench.module.laser.read()).emitting:
        return [skipped("symbols", bench.part("source"), "the laser is lit")]
    run, _ = await device.now()
    if run:
        return [skipped("symbols", bench.part("source"), "a run is on")]
    out = await _status(bench)
    rms = await device.set_randomiser(True)
    await device.set_randomiser(False)
    hint = "phase randomiser: its driver gives another swing"
    out.append(of_device(bench, "source", "randomiser_rms", rms, RANDOMISER, "rad", hint))
    drawn, rate = await _draw(bench)
    hint = "slots pass faster or slower than the period says: reference, or clock of this controller"
    out.append(of_device(bench, "source", "slot_rate", rate, RATE, "of nominal", hint, ("clock", "reference_locked")))
    return [*out, *_symbols(bench, drawn)]


async def _status(bench: Bench) -> list[Finding]:
    device, driver = bench.module.source, bare(bench, "source")
    bits = await device.questionable()
    told = [
        of_device(bench, "source", name, float(not bits & bit), YES, hint=f"STAT:QUES? is {bits}")
        for name, bit in QUESTIONS
    ]
    wanted = bench.module.config.pair.symbol_period_ps
    hint = f"the configuration says {wanted:g} ps"
    found = await driver.read_period_ps() if isinstance(driver, SymbolSource) else device.period_ps
    return [*told, of_device(bench, "source", "symbol_period", found, Limits.exactly(wanted), "ps", hint)]


async def _draw(bench: Bench) -> tuple[Drawn, float]:
    """Symbols of a run in the dark, and its slots against the clock. Whatever happens, it is stopped and erased."""
    device, settings = bench.module.source, bench.context.settings
    p_x, p_decoy = await device.set_probabilities(settings.p_x, settings.p_decoy)
    await device.set_mode(LightMode.KEY)
    try:
        await device.run()
        begun, (_, first), after = bench.clock.monotonic(), await device.now(), bench.clock.monotonic()
        await bench.sleep(max(FILL_S, TICK_S))
        before, (_, last), ended = bench.clock.monotonic(), await device.now(), bench.clock.monotonic()
        nibbles = await device.read_symbols(np.arange(first, min(last, first + SLOTS), dtype=np.int64))
        await device.free(last)
    finally:
        await device.set_mode(LightMode.OFF)
        await device.stop()
    # It was read at some moment within each query: of the rates that this allows, the one nearest to nominal.
    seconds, shortest, longest = (last - first) * device.period_ps * 1e-12, before - after, ended - begun
    rate = min(max(1.0, seconds / longest), seconds / shortest) if shortest > 0.0 else math.nan
    return Drawn(nibbles[nibbles & NOT_VALID == 0] & 7, p_x, p_decoy), rate


def _symbols(bench: Bench, drawn: Drawn) -> list[Finding]:
    count = len(drawn.nibbles)
    enough = Limits(low=SLOTS // 2)
    out = [of_device(bench, "source", "symbols_read", count, enough, "symbols", "too few valid ones came back")]
    if count < health.WINDOW_BITS:
        return out
    for name in BITS:
        out += _stream(bench, f"symbols.{name}", drawn.bits(name), drawn.p(name))
    cells = np.array([_cell(drawn, nibble) for nibble in range(8)])
    value, freedom = health.chi_square(np.bincount(drawn.nibbles, minlength=8), cells)
    cutoff = Limits(0.0, health.chi_square_cutoff(freedom))
    hint = "symbols do not come as often as the probabilities say, or their bits depend on one another"
    return [*out, of_device(bench, "source", "symbols.chi_square", value, cutoff, "", hint, ("generator_healthy",))]


def _cell(drawn: Drawn, nibble: int) -> float:
    return math.prod(drawn.p(b) if nibble >> shift & 1 else 1.0 - drawn.p(b) for b, shift in BITS.items())


def _stream(bench: Bench, name: str, bits: health.Samples, p_one: float) -> list[Finding]:
    """Both tests of SP 800-90B and the correlation of neighbours, of one bit of the symbols."""
    needs = ("generator_healthy",)
    if not 0.0 < p_one < 1.0:
        return []
    got = health.health(bits, health.min_entropy(p_one))
    worst = max((abs(health.lag_z(bits, lag)) for lag in LAGS), default=0.0)
    hint = "SP 800-90B 4.4.1: one value on end"
    of = ("source", f"{name}.run", got.run, Limits(0, got.run_cutoff - 1), "symbols", hint, needs)
    first = of_device(bench, *of)
    hint = "SP 800-90B 4.4.2: one value fills a window"
    second = of_device(
        bench, "source", f"{name}.share", got.proportion, Limits(0, got.proportion_cutoff - 1), "symbols", hint, needs
    )
    hint = "neighbours depend on one another"
    return [first, second, of_device(bench, "source", f"{name}.lag", worst, Limits(0.0, LAG_Z), "sigma", hint, needs)]


async def system(bench: Bench) -> list[Finding]:
    """The same tests on the generator that nonces, seeds and one-time keys come from."""
    data = np.frombuffer(bench.randomness.bytes(SYSTEM_BYTES), np.uint8)
    bits = np.unpackbits(data)
    got = health.health(bits, 1.0)
    uniform = np.full(256, 1.0 / 256.0)
    value, freedom = health.chi_square(np.bincount(data, minlength=256), uniform)
    again = float(bytes(data[:32]) == bench.randomness.bytes(32))
    part = "random numbers"
    hint = "the operating system's generator is broken: make no keys"
    return [
        Finding("system_random.run", got.run, "bits", Limits(0, got.run_cutoff - 1), part, hint=hint),
        Finding("system_random.share", got.proportion, "bits", Limits(0, got.proportion_cutoff - 1), part, hint=hint),
        Finding("system_random.bytes", value, "", Limits(0.0, health.chi_square_cutoff(freedom)), part, hint=hint),
        Finding("system_random.repeats", again, "", NONE, part, hint=hint),
    ]


CHECKS: tuple[Check, ...] = (
    Check("symbols", Level.POWER_ON, source, parts=("symbol_source", "laser"), sides=("alice",)),
    Check("system_random", Level.POWER_ON, system, parts=("random numbers",)),
)
