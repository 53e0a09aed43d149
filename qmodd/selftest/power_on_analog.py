"""Converters without light: the ADC's own test inputs, its noise, and the DACs against what they say of themselves."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from drivers.chips.ads131m08 import AdcSelfTest, Ads131m08
from drivers.chips.ltc2672 import REFERENCE_V, Ltc2672
from drivers.errors import DriverError
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Check, Finding, Level, Limits, skipped
from qmodd.selftest.power_on_common import NONE, SPARE, YES, device, guarded, of_device, through

SAMPLES = 64
# Data sheet: offset at most 0.5 mV at gain 1, test signal 160 mV within 2 %, noise some uV at this rate.
SHORT_V = Limits.around(0.0, 1e-3, 5e-4)
TEST_V = 0.160
TEST = Limits.around(TEST_V, 5e-3, 3.5e-3)
ADC_NOISE_V = Limits(0.0, 2e-5)
# An amplifier's noise is 0.05 % of the current, 43 uV at 0.2 V a decade; a module may be specified for twenty times it.
PIN_NOISE_V = Limits(0.0, 5e-3, warn_high=1.5e-3)
SHORTED_PIN_NOISE_V = Limits(0.0, 1e-4)
OFF_V = Limits.around(0.0, 2e-3)
REFERENCE = Limits.around(REFERENCE_V, 0.025, 0.015)
# The converter ends at 1.2 V, which is 4.8 V behind the divider.
SUPPLY_V = Limits(4.5, 5.5)
DIE_C = Limits(-10.0, 95.0)
SHORT, MONITOR = "short", "heater_monitor"
SPARE_TEST_A, SPARE_TEST_V = 1e-3, 1.0


async def adc(bench: Bench) -> list[Finding]:
    """Internal short and test signals, then the noise of every pin as it is."""
    converter = device(bench, "adc")
    if not isinstance(converter, Ads131m08):
        return [skipped("adc_test", bench.part("adc"), "this converter has no test inputs")]
    return await guarded(bench, "adc", "adc", _adc(bench, converter))


async def _adc(bench: Bench, converter: Ads131m08) -> list[Finding]:
    got = await converter.self_test(SAMPLES)
    series = await converter.read_series(SAMPLES)
    return [*_internal(bench, got), *_pins(bench, series)]


def _internal(bench: Bench, got: AdcSelfTest) -> list[Finding]:
    out = []
    for name, values, limits, sign in (
        ("adc_internal_short", got.short, SHORT_V, 1.0),
        ("adc_test_positive", got.positive, TEST, 1.0),
        ("adc_test_negative", got.negative, TEST, -1.0),
        ("adc_noise", got.noise, ADC_NOISE_V, 1.0),
    ):
        centre = (limits.low + limits.high) / 2.0
        worst = max(values, key=lambda k: abs(sign * values[k] - centre))
        hint = f"worst channel: {worst}; its input is not connected to the pin during this test"
        out.append(of_device(bench, "adc", name, sign * values[worst], limits, "V", hint))
    return out


def _pins(bench: Bench, series: dict[str, list[float]]) -> list[Finding]:
    """Noise of a photodiode's amplifier is that of the photodiode's channel; the shorted pin is the converter's own."""
    out = []
    for channel, volts in series.items():
        rms = statistics.stdev(volts)
        if channel == SHORT:
            mean = statistics.fmean(volts)
            out.append(of_device(bench, "adc", "adc_shorted_pin", mean, SHORT_V, "V", "the pin is wired to ground"))
            out.append(of_device(bench, "adc", "adc_shorted_pin_noise", rms, SHORTED_PIN_NOISE_V, "V"))
        elif channel == MONITOR:
            out.append(of_device(bench, "adc", f"noise.{channel}", rms, PIN_NOISE_V, "V"))
        else:
            hint = "amplifier, its supply, or its connection to the converter is noisy"
            part = f"photodiode {channel}"
            needs = ("adc_noise", "adc_internal_short", "adc_shorted_pin_noise")
            out.append(through(bench, ["adc"], part, f"noise.{channel}", rms, PIN_NOISE_V, "V", hint, needs))
    return out


async def biases(bench: Bench) -> list[Finding]:
    """The unconnected output is written and its echo compared; it goes back to what it was."""
    bank = bench.module.biases
    if SPARE not in bank.channels:
        return [skipped("bias_echo", bench.part("biases"), "no output is unconnected")]
    before = bank.voltage(SPARE)
    wrong: list[str] = []
    for volts in (SPARE_TEST_V, -SPARE_TEST_V, before):
        try:
            await bank.set_voltage(SPARE, volts)
        except DriverError as error:
            wrong.append(str(error))
    return [of_device(bench, "biases", "bias_echo", len(wrong), NONE, "errors", "; ".join(wrong)[:300])]


async def heaters(bench: Bench) -> list[Finding]:
    """The unconnected output has its open-circuit flag while it is driven, and no other has: flags are not assumed.

    Then what the source says of itself on its monitor pin.
    """
    return await guarded(bench, "heaters", "heater_source", _heaters(bench))


async def _heaters(bench: Bench) -> list[Finding]:
    bank = bench.module.heaters
    if SPARE not in bank.channels:
        return [skipped("spare_open_circuit", bench.part("heaters"), "no output is unconnected"), *await _mux(bench)]
    before = bank.current(SPARE)
    rail = ("rail heater", bench.part("platform"), bench.bus("platform"))
    out = []
    try:
        await bank.set_current(SPARE, SPARE_TEST_A)
        driven = await bank.open_circuits()
        await bank.set_current(SPARE, 0.0)
        rest = await bank.open_circuits()
    finally:
        await bank.set_current(SPARE, before)
    hint = "its flag does not follow: line dead, or answers are old"
    alone = float(SPARE in driven and SPARE not in rest)
    out.append(of_device(bench, "heaters", "spare_open_circuit", alone, YES, hint=hint, needs=rail))
    for channel in bank.channels:
        if channel != SPARE:
            flag = float(channel in driven or channel in rest)
            said = "open circuit: heater, bond or connector"
            part = f"heater {channel}"
            out.append(through(bench, ["heaters"], part, f"open_circuit.{channel}", flag, NONE, hint=said))
    return [*out, *await _mux(bench)]


async def _mux(bench: Bench) -> Sequence[Finding]:
    bank = device(bench, "heaters")
    if not isinstance(bank, Ltc2672) or MONITOR not in bench.module.adc.channels:
        return []
    try:
        await bank.monitor(None)
        off = await _volts(bench)
        await bank.monitor_internal("reference")
        reference = await _volts(bench)
        await bank.monitor_internal("supply")
        supply = await _volts(bench)
        await bank.monitor_internal("die")
        die = bank.die_celsius(await _volts(bench))
    finally:
        await bank.monitor(None)
    source = (bench.part("heaters"), bench.bus("heaters"))
    also = (bench.part("adc"), bench.bus("adc"), "monitor_off", "monitor_reference")
    hint = "two references disagree: that of the converter is off, for no heater current shows it"
    return [
        of_device(bench, "adc", "monitor_off", off, OFF_V, "V", "pin held down, and the converter reads this", source),
        of_device(bench, "adc", "monitor_reference", reference, REFERENCE, "V", hint, (*source, "monitor_off")),
        of_device(bench, "heaters", "heater_source_supply", supply, SUPPLY_V, "V", needs=also),
        of_device(bench, "heaters", "heater_source_die", die, DIE_C, "C", needs=also),
    ]


async def _volts(bench: Bench) -> float:
    """At the source's monitor pin."""
    await bench.sleep(bench.context.settings.settle_s)
    return (await bench.module.adc.read_volts(8))[MONITOR] * bench.context.settings.heater_monitor_divider


CHECKS: tuple[Check, ...] = (
    Check("adc", Level.POWER_ON, adc, parts=("monitor_adc",)),
    Check("bias_dac", Level.POWER_ON, biases, parts=("bias_dac",)),
    Check("heater_dac", Level.POWER_ON, heaters, parts=("heater_dac", "monitor_adc")),
)
