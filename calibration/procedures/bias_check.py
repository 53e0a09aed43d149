"""Data check of a modulator's bias: one period of dither where its record says the extremum is."""

from __future__ import annotations

from math import degrees, pi, radians

from calibration.context import CalibrationContext
from calibration.dither import extinction_limit_db
from calibration.fit import FitRefused
from calibration.procedure import CheckResult
from calibration.procedures.light import reader, sigma_of
from calibration.procedures.sweeps import dither_bias
from calibration.record import Record

# Creep after a power cut and a night's wander stay within; the loops in service take out what is left.
LIMIT_RAD = radians(6.0)


async def dither_check(
    context: CalibrationContext, record: Record, channel: str, diode: str, at_v: float, kind: str
) -> CheckResult:
    """The light must be on. The bias is back at `at_v` afterwards."""
    v_pi = record.value["v_pi_v"]
    try:
        found, _, _ = await dither_bias(
            context, channel, at_v, v_pi, reader(context, diode), sigma_of(context, diode), kind=kind, rounds=1
        )
    except FitRefused as e:
        return CheckResult.bad_data(str(e))
    finally:
        await context.biases.set_voltage(channel, at_v)
        await context.settle()
    off = (found.x - at_v) * pi / v_pi
    read = {"bias_error_rad": off, "bias_error_sigma_rad": found.sigma * pi / v_pi}
    if abs(off) > LIMIT_RAD + 5.0 * read["bias_error_sigma_rad"]:
        why = (
            f"{channel}: its {kind} is {degrees(off):+.1f} degrees from the record, which limits the extinction to "
            f"{extinction_limit_db(off):.0f} dB; {degrees(LIMIT_RAD):.0f} degrees is the limit"
        )
        return CheckResult.out_of_spec(why, read)
    return CheckResult.in_spec(read)
