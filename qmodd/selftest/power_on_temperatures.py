"""Thermometers against one another: at rest they all read the same air, and on the way two of them move together."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from drivers.errors import DriverError
from drivers.roles import TecReading
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Check, Finding, Level, Limits, skipped
from qmodd.selftest.power_on_common import YES, of_device, through

# Plausible for a module that somebody can stand beside; an open or shorted sensor is far outside.
CHIP_C = Limits(0.0, 70.0, 5.0, 60.0)
SINK_C = Limits(-5.0, 80.0, 0.0, 65.0)
# Sensors of 0.1 to 0.3 K in a module that has not run: what the air does to it is slower than a kelvin an hour.
AT_REST_K = 1.5
REST_A = 0.02
# A sink that has just been at work is warm, and the module does not know how long it was without supply.
SINK_APART_K = Limits.around(0.0, 25.0, AT_REST_K)
# The monitor's die is a little warmer than the board, and its sensor is good to 3 K.
DIE_K = Limits(-5.0, 8.0)
PAIR_K = 0.6
# The witness is a conversion of up to 1.1 s ago, the controller's sensor lags by half a second.
LAG_S = 0.8
WATCH_S, SAMPLES = 1.0, 7
NOISE_K = Limits(0.0, 0.2)


@dataclass(frozen=True)
class Moment:
    """One reading of both sensors of the chip, C."""

    witness_c: float
    chip: TecReading


async def temperatures(bench: Bench) -> list[Finding]:
    """A first look, then both sensors of the chip followed for some seconds."""
    role, series = "submount", list[Moment]()
    try:
        for number in range(SAMPLES):
            if number:
                await bench.sleep(WATCH_S)
            role = "submount"
            witness_c = await bench.module.submount.read_celsius()
            role = "tec"
            series.append(Moment(witness_c, await bench.module.tec.read()))
    except DriverError as error:
        return [of_device(bench, role, "temperatures.answers", 0.0, YES, hint=str(error))]
    board = await _board(bench)
    return [*_plausible(bench, series[0]), *_at_rest(bench, series, board), *_together(bench, series)]


async def _board(bench: Bench) -> float | None:
    """Die of the supply monitor, C; None when it does not answer, which other checks tell."""
    try:
        return (await bench.module.rail.read()).die_temperature_c
    except DriverError:
        return None


def _plausible(bench: Bench, first: Moment) -> list[Finding]:
    open_or_short = "outside what is plausible: sensor open or shorted"
    chip, sink = first.chip.object_c, first.chip.sink_c
    return [
        of_device(bench, "submount", "submount_temperature", first.witness_c, CHIP_C, "C"),
        through(bench, ["tec"], "thermistor", "chip_temperature", chip, CHIP_C, "C", open_or_short),
        through(bench, ["tec"], "heat sink", "sink_temperature", sink, SINK_C, "C", "its fan, its air, or its sensor"),
    ]


def _at_rest(bench: Bench, series: list[Moment], board_c: float | None) -> list[Finding]:
    """Three sensors of one temperature vote: the one that is off is named."""
    first = series[0]
    names = ("rest.submount", "rest.chip", "rest.sink")
    if abs(first.chip.current_a) > REST_A:
        why = "the chip is held away from the temperature of its surroundings"
        return [skipped(n, bench.part("submount"), why) for n in names]
    readings = [first.witness_c, first.chip.object_c, first.chip.sink_c]
    middle = statistics.median(readings)
    apart = [r - middle for r in readings]
    limits = Limits.around(0.0, AT_REST_K)
    hint = "apart from the two other sensors of the same temperature: replace the sensor"
    sink_hint = (
        "apart from the chip, which may have been regulated until a moment ago; if it has not, its sensor is off"
    )
    out = [
        of_device(bench, "submount", names[0], apart[0], limits, "K", hint),
        through(bench, ["tec"], "thermistor", names[1], apart[1], limits, "K", hint),
        through(bench, ["tec"], "heat sink", names[2], apart[2], SINK_APART_K, "K", sink_hint),
    ]
    if board_c is not None:
        hint = "die temperature far from the heat sink's"
        out.append(of_device(bench, "rail", "rest.rail_monitor", board_c - middle, DIE_K, "K", hint))
    return out


def _together(bench: Bench, series: list[Moment]) -> list[Finding]:
    """Difference at the end, against how fast the chip moves; and how the witness jumps about the other one."""
    apart = [m.witness_c - m.chip.object_c for m in series]
    rate = abs(series[-1].chip.object_c - series[-2].chip.object_c) / WATCH_S
    allowed = PAIR_K + LAG_S * rate
    bends = [abs(a - 2.0 * b + c) for a, b, c in zip(apart, apart[1:], apart[2:], strict=False)]
    # A start or an end of the chip's way bends the difference once or twice; noise bends it everywhere.
    jitter = statistics.median(bends) / 6.0**0.5
    tec = (bench.part("tec"), bench.bus("tec"), "thermistor", "rest.chip")
    hint = "its two thermometers disagree: the witness is off, or loose, or stands still"
    still = len({m.chip.object_c for m in series}) > 1
    return [
        of_device(bench, "submount", "chip_sensors_apart", apart[-1], Limits.around(0.0, allowed), "K", hint, tec),
        of_device(bench, "submount", "submount_noise", jitter, NOISE_K, "K", "readings jump: line or part", tec),
        of_device(bench, "tec", "tec_readings_move", float(still), YES, hint="every reading of the chip is the same"),
    ]


CHECKS: tuple[Check, ...] = (
    Check("temperatures", Level.POWER_ON, temperatures, parts=("submount", "tec"), lane="slow", budget_s=9.8),
)
