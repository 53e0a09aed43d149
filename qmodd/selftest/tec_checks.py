"""Temperature control: a relay about the present temperature, watched by every sensor there is, then heat in the sink.

Lane "tec": the rest of the level runs beside it. The element is driven directly, so that the checks work with the
regulating loop and without it (a loop that has given up is a finding, not an obstacle). Four thermometers look at two
temperatures: thermistor and TMP117 at the submount, the sink's sensor, and the element itself, whose voltage tells the
difference of the two (pair A6.5): where two disagree the element says which one is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from calibration.fit import Array, FitRefused
from calibration.tec_experiment import Identified, Relay
from drivers.errors import OutOfRange
from drivers.roles import TecState
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Check, Finding, Level, Limits, skipped
from qmodd.selftest.sink_checks import BURST_NOTE, sink_findings
from qmodd.selftest.tec_watch import Look, Watch

# Why the regulating loop has given up, where it has (str); left by who runs the bench.
LOOP_NOTE = "temperature_loop"
WAIT_S, NEAR_K, NEAR_FOR_S = 100.0, 0.06, 2.5
REST_S, READ_S = 5.0, 0.1
AGAIN_K, AGAIN_FOR_S, AGAIN_S = 0.02, 1.5, 25.0
# Element and submount of pair A6.5, A6.6: slope 0.478 K/s per A, delay 0.5 s of sensor and 0.05 s of controller.
SLOPE = Limits(0.36, 0.62, 0.42, 0.54)
DELAY_S = Limits(0.25, 1.2, 0.4, 0.85)
OHM = Limits.around(1.03, 0.25, 0.15)
SEEBECK_V_PER_K = 0.0133
GIVEN = Limits.around(1.0, 0.08)
# 0.3 mK rms; a controller that repeats itself shows none.
NOISE_K = Limits(2e-6, 5e-3, warn_high=2e-3)
WITNESS_NOISE_K = Limits(high=0.05)
ERROR_K = Limits.around(0.0, 0.06)
AGREE_K = Limits.around(0.0, 0.8, 0.4)
FOLLOWS = Limits(0.5, 1.5)
SENSOR_C = Limits(-20.0, 90.0)
# Without these there is nothing to drive by.
MUST = ("tec_state", "tec_fresh", "thermistor_range", "thermistor_noise")
# The relay's step is 0.15 of the limit in the record of the plant; here half more: the chip may not be at rest.
RELAY_TIMES = 1.5
# Burst that warms the sink: share of the current limit, time, and how far the submount may go meanwhile.
BURST_SHARE, BURST_S, BURST_STEP_S, BURST_K = 0.9, 10.0, 0.25, 0.12


async def tec_findings(bench: Bench) -> list[Finding]:
    """About 35 s at a chip that is at its temperature; at most 150 s. The regulator is on afterwards if it was."""
    watch = Watch(bench)
    waited = await _wait(bench, watch)
    rest = await watch.look(REST_S, READ_S)
    found = [*waited, *_at_rest(bench, rest)]
    if any(f.name in MUST and not f.ok for f in found):
        return found
    was_on = rest[-1].tec.state in (TecState.STABLE, TecState.NOT_STABLE)
    try:
        if not was_on:
            await bench.context.tec.drive_current(0.0)
            await bench.context.tec.enable(True)
        found += await _relay(bench, watch, rest)
        if all(f.ok for f in found):
            await _burst(bench, watch)
    finally:
        if not was_on:
            await bench.context.tec.enable(False)
        await bench.context.tec.drive_current(None)
    if was_on and all(f.ok for f in found):
        # Regulation begins with an empty integral.
        found.append(await _again(bench, watch))
    watch.figure(bench)
    return found


def _needs(bench: Bench) -> tuple[str, ...]:
    return (bench.bus("tec"), "supply")


async def _wait(bench: Bench, watch: Watch) -> list[Finding]:
    """Until the chip is near its target, unless its loop has given up."""
    part, needs = bench.part("tec"), (*_needs(bench), "peltier", "thermistor", "heat sink")
    if why := bench.notes.get(LOOP_NOTE):
        return [Finding("temperature_loop", 0.0, "", Limits.exactly(1.0), part, needs, str(why))]
    target = bench.module.config.control.tec_target_c
    end, since = bench.clock.monotonic() + WAIT_S, bench.clock.monotonic()
    while True:
        look = await watch.once()
        off, now = abs(look.tec.object_c - target), bench.clock.monotonic()
        # On a long way the loop regulates first and identifies its plant afterwards, by a relay of its own.
        known = bench.context.identify_tec is None or bench.context.store.active("tec_plant") is not None
        if off > NEAR_K or not known:
            since = now
        if now - since >= NEAR_FOR_S or now >= end or look.tec.state is TecState.ERROR:
            hint = f"the chip is at {look.tec.object_c:.2f} C, its target is {target:.2f} C"
            return [Finding("temperature_reached", off, "K", Limits(high=NEAR_K), part, needs, hint)]
        await bench.sleep(READ_S)


def _at_rest(bench: Bench, rest: Sequence[Look]) -> list[Finding]:
    tec, needs = bench.part("tec"), _needs(bench)
    last, objects = rest[-1].tec, np.array([r.tec.object_c for r in rest])
    error = float(last.state is TecState.ERROR)
    state = Finding(
        "tec_state", error, "", Limits.exactly(0.0), tec, needs, f"the controller reports error {last.error}"
    )
    moving = float(np.ptp([r.tec.sink_c for r in rest]) + np.ptp([r.tec.current_a for r in rest]) + np.ptp(objects))
    fresh = Finding("tec_fresh", moving, "", Limits(low=1e-9), tec, needs, "all of its readings stand still")
    span = Finding("thermistor_range", float(np.median(objects)), "C", SENSOR_C, "thermistor", needs, "open or shorted")
    # Differences of neighbours: a slow course is no noise.
    noise = float(np.std(np.diff(objects))) / np.sqrt(2.0)
    witness = np.array([r.witness_c for r in rest])
    bus = (bench.bus("submount"), "supply")
    out = [state, fresh, span]
    out.append(Finding("thermistor_noise", noise, "K", NOISE_K, "thermistor", needs, "noisy or standing still"))
    spread = float(np.std(np.diff(witness))) / np.sqrt(2.0)
    out.append(Finding("witness_noise", spread, "K", WITNESS_NOISE_K, bench.part("submount"), bus, "noisy"))
    if bench.notes.get(LOOP_NOTE) is None:
        off = float(np.mean(objects)) - last.target_c
        hint = "regulates beside its target"
        out.append(Finding("temperature_error", off, "K", ERROR_K, tec, (*needs, "thermistor", "peltier"), hint))
    return out


async def _relay(bench: Bench, watch: Watch, rest: Sequence[Look]) -> list[Finding]:
    relay = Relay(RELAY_TIMES * bench.context.settings.tec_current_limit_a)
    start = len(watch.looks)
    # The regulator may still be at work: what holds the temperature is its mean.
    held = float(np.mean([k.tec.current_a for k in rest]))
    try:
        while True:
            look = await watch.once()
            reading = replace(look.tec, current_a=held) if len(watch.looks) == start + 1 else look.tec
            amperes = relay.step(look.at_s, reading)
            if amperes is None:
                break
            if not relay.drives(amperes):
                await bench.context.tec.drive_current(amperes)
                relay.drove(bench.clock.monotonic(), amperes)
            await bench.sleep(READ_S)
        found = relay.evaluate().at(bench.module.config.control.tec_target_c)
    except FitRefused as e:
        return [*_agreement(bench, rest, 1.03), _refused(bench, str(e), watch.looks[start:])]
    except OutOfRange as e:
        # The loop allows no more than 0.7 I_opt of the element that it has found: a weak one.
        why = f"the element takes hardly any current before it only heats: {e}"
        return [Finding("tec_responds", 0.0, "", Limits.exactly(1.0), "peltier", _needs(bench), why)]
    looks = watch.looks[start:]
    ohm = found.element.ohm if found.element else 1.03
    return [*_agreement(bench, rest, ohm), *_identified(bench, found, looks)]


def _refused(bench: Bench, why: str, looks: Sequence[Look]) -> Finding:
    """The part by what the other thermometer saw meanwhile."""
    needs, limits = (*_needs(bench),), Limits.exactly(1.0)
    moved = float(np.ptp([k.witness_c for k in looks])) if looks else 0.0
    if "CHECK POLARITY" in why or "no limit cycle" in why:
        part = "peltier"
    elif "back while" in why:
        seen = [abs(k.tec.current_a) for k in looks]
        part = "peltier" if max(seen, default=0.0) < 0.01 else bench.part("tec")
    else:
        part = "thermistor" if moved > 0.04 else "peltier"
    return Finding("tec_responds", 0.0, "", limits, part, needs, why)


def _agreement(bench: Bench, rest: Sequence[Look], ohm: float) -> list[Finding]:
    """Thermistor less TMP117; whichever is further from what the element's own voltage says is to blame."""
    object_c = float(np.mean([k.tec.object_c for k in rest]))
    witness_c = float(np.mean([k.witness_c for k in rest]))
    sink_c = float(np.mean([k.tec.sink_c for k in rest]))
    volts = float(np.mean([k.tec.voltage_v for k in rest]))
    amperes = float(np.mean([k.tec.current_a for k in rest]))
    element_c = sink_c - (volts - ohm * amperes) / SEEBECK_V_PER_K
    thermistor = abs(object_c - element_c) >= abs(witness_c - element_c)
    part = "thermistor" if thermistor else bench.part("submount")
    needs = (bench.bus("submount" if not thermistor else "tec"), "supply")
    hint = f"thermistor {object_c:.2f} C, TMP117 {witness_c:.2f} C, the element's voltage says {element_c:.2f} C"
    return [Finding("thermistor_against_witness", object_c - witness_c, "K", AGREE_K, part, needs, hint)]


def _identified(bench: Bench, found: Identified, looks: Sequence[Look]) -> list[Finding]:
    tec, needs, plant = bench.part("tec"), _needs(bench), found.plant
    sigma = np.sqrt(np.maximum(0.0, np.diag(plant.covariance)))
    driven = np.array([found.raw["current_a"], np.interp(found.raw["t_s"], *_steps(found))])
    late = np.abs(driven[1]) > 0.1
    given = float(np.median(driven[0][late] / driven[1][late])) if late.any() else 1.0
    own = np.ptp([k.tec.object_c for k in looks])
    follows = float(np.ptp([k.witness_c for k in looks]) / own)
    bus = (bench.bus("submount"), "supply", "thermistor")
    ohm = found.element.ohm if found.element else float("nan")
    return [
        Finding(
            "tec_slope",
            plant.slope_k_per_a_s,
            "K/s/A",
            SLOPE,
            "peltier",
            (*needs, tec, "thermistor"),
            "pumps less or more than its kind does",
            sigma=float(sigma[0]),
        ),
        Finding("tec_delay", plant.delay_s, "s", DELAY_S, "thermistor", needs, "sits badly on the submount"),
        Finding("peltier_resistance", ohm, "ohm", OHM, "peltier", (*needs, tec), "contacts, or the element is ageing"),
        Finding("tec_given", given, "1", GIVEN, tec, needs, "current read back over current driven"),
        Finding("witness_follows", follows, "1", FOLLOWS, bench.part("submount"), bus, "does not follow the chip"),
    ]


def _steps(found: Identified) -> tuple[Array, Array]:
    """The driven current as a polygon with vertical steps."""
    at, amperes = found.raw["driven_at_s"], found.raw["driven_a"]
    x = np.repeat(at, 2)[1:]
    return np.append(x, x[-1] + 1e3), np.repeat(amperes, 2)


async def _burst(bench: Bench, watch: Watch) -> None:
    """To and fro as hard as it may: the submount stays where it is, the sink gets all of the electric power."""
    amperes = BURST_SHARE * bench.context.settings.tec_current_limit_a
    centre = watch.looks[-1].tec.object_c
    begun, sign = bench.clock.monotonic(), 1.0
    end = begun + BURST_S
    while bench.clock.monotonic() < end:
        await bench.context.tec.drive_current(sign * amperes)
        await bench.sleep(BURST_STEP_S)
        off = (await watch.once()).tec.object_c - centre
        sign = -sign if abs(off) < BURST_K else (1.0 if off > 0.0 else -1.0)
    bench.notes[BURST_NOTE] = (begun, bench.clock.monotonic())


async def _again(bench: Bench, watch: Watch) -> Finding:
    """How long the regulator takes to be back: gains that it does not have show here."""
    target = bench.module.config.control.tec_target_c
    begun = since = bench.clock.monotonic()
    while True:
        look, now = await watch.once(), bench.clock.monotonic()
        if abs(look.tec.object_c - target) > AGAIN_K:
            since = now
        if now - since >= AGAIN_FOR_S or now - begun >= AGAIN_S:
            break
        await bench.sleep(READ_S)
    limits, needs = Limits(high=0.9 * AGAIN_S), (*_needs(bench), "peltier", "thermistor")
    hint = "seconds until it regulates again after a disturbance: gains, or a weak output stage"
    return Finding("tec_recovery", now - begun, "s", limits, bench.part("tec"), needs, hint)


async def _tec(bench: Bench) -> Sequence[Finding]:
    return await tec_findings(bench)


async def _sink(bench: Bench) -> Sequence[Finding]:
    found = await sink_findings(bench)
    return found or [skipped("heat_sink", "heat sink", "the sink was not warmed by the light-off level")]


OFF_CHECKS: tuple[Check, ...] = (
    Check("temperature", Level.LIGHT_OFF, _tec, ("tec",), lane="tec", after=("tec",), budget_s=170.0),
)
ON_CHECKS: tuple[Check, ...] = (
    Check("heat sink", Level.LIGHT_ON, _sink, ("tec",), lane="tec", after=("tec", "peltier"), budget_s=40.0),
)
