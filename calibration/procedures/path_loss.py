"""Insertion loss between the transmitter's monitors, and extinction ratio of every switch on the way."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, log, log10, sqrt
from typing import ClassVar

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.noise import reading_noise
from calibration.plot import Figure, Plot, Series
from calibration.procedure import Disturbs, Procedure, Raw
from calibration.procedures.carver_bias import PULSE_PS
from calibration.procedures.light import shine
from calibration.record import Record, diagonal
from drivers.roles import LightMode

SAMPLES = 64
# Factory's tap ratios and responsivities, 1 % each at both ends of a path, in dB.
TAPS_DB = 10.0 / log(10.0) * 0.02
# Most that each path may lose, dB: design, five individual deviations, and a wet connector.
LIMIT_DB = {"filter": 2.0, "interferometer": 14.0, "modulators": 24.0, "shutter": 2.0}
# Least extinction, dB (reference pair A7).
LEAST_DB = {"carver": 22.0, "state": 18.5, "decoy": 18.5, "shutter": 25.0}
PATHS = {
    "filter": "laser tap PA6 to filter tap PA0",
    "interferometer": "PA0 to the interferometer's second output PA1",
    "modulators": "PA0 to PA3 behind the modulators, in a bright pulse",
    "shutter": "PA3 to PA4 with the shutter crossed",
}


class PathLoss(Procedure):
    """PA6 -> PA0 -> PA1, PA3 -> PA4: optical power behind each stage over that before it, by the factory's taps and
    responsivities; extinctions of C, S, D and shutter from their records (reference control C, light-on test).

    Names the stage that loses too much or does not close.
    """

    name: ClassVar[str] = "path_loss"
    needs: ClassVar[tuple[str, ...]] = ("mean_photon",)
    valid_s: ClassVar[float] = 30 * 86_400.0
    disturbs: ClassVar[Disturbs] = Disturbs.KEYS
    deferred: ClassVar[bool] = True
    cost_s: ClassVar[float] = 0.2
    equation: ClassVar[str] = "loss = -10 log10(P_after / P_before), P = I / (responsivity tap)"

    async def calibrate(self, context: CalibrationContext) -> Record:
        await shine(context, LightMode.FIX, 0)
        seen = await context.photocurrents("pa0", "pa1", "pa3", "pa6", samples=SAMPLES)
        await shine(context, LightMode.OFF)
        for name, amperes in seen.items():
            if amperes <= 0.0:
                raise CalibrationRefused(self.name, f"photodiode {name} sees no light in a bright Z0: {amperes:.2g} A")
        duty = PULSE_PS / context.settings.symbol_period_ps
        noise = reading_noise(context)
        watts = {n: i / context.factory.photodiode(n).responsivity_a_per_w / _tap(context, n) for n, i in seen.items()}
        share = context.record("shutter").value
        value = {
            "filter_db": _loss(watts["pa6"], watts["pa0"]),
            "interferometer_db": _loss(watts["pa0"], watts["pa1"] / duty),
            "modulators_db": _loss(watts["pa0"], watts["pa3"] / duty),
            "shutter_db": _loss(1.0, share["ratio"] * (1.0 + share["visibility"]) * _gain(context)),
        }
        pairs = (("pa6", "pa0"), ("pa0", "pa1"), ("pa0", "pa3"), ("pa3", "pa3"))
        sigmas = [
            hypot(TAPS_DB, 10.0 / log(10.0) * sqrt(sum(noise.share(d, seen[d], SAMPLES) ** 2 for d in pair)))
            for pair in pairs
        ]
        value |= {f"{n}_extinction_db": e for n, e in _extinctions(context).items()}
        self._judge(value)
        return await self.make_record(
            context, value, seen, names=tuple(f"{n}_db" for n in PATHS), covariance=diagonal(sigmas)
        )

    def _judge(self, value: dict[str, float]) -> None:
        """Raises CalibrationRefused, naming the stage, what was read and the limit."""
        for name, limit in LIMIT_DB.items():
            if value[f"{name}_db"] > limit:
                raise CalibrationRefused(
                    self.name, f"{PATHS[name]}: {value[f'{name}_db']:.1f} dB of loss; the limit is {limit:.1f} dB"
                )
        for name, least in LEAST_DB.items():
            if value[f"{name}_extinction_db"] < least:
                raise CalibrationRefused(
                    self.name,
                    f"{name}: extinction {value[f'{name}_extinction_db']:.1f} dB; {least:.1f} dB is the least",
                )

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        x = [float(i) for i in range(4)]
        loss = Series("loss", x, [record.value[f"{n}_db"] for n in PATHS])
        most = Series("limit", x, [LIMIT_DB[n] for n in PATHS], "line")
        found = Series("extinction", x, [record.value[f"{n}_extinction_db"] for n in LEAST_DB])
        least = Series("limit", x, list(LEAST_DB.values()), "line")
        return [
            Plot(f"Insertion loss: {', '.join(PATHS)}", "stage", "loss (dB)", [loss, most]),
            Plot(f"Extinction: {', '.join(LEAST_DB)}", "stage", "extinction (dB)", [found, least]),
        ]


def _tap(context: CalibrationContext, diode: str) -> float:
    return context.factory.photodiode(diode).tap_ratio


def _gain(context: CalibrationContext) -> float:
    """What turns the ratio of photocurrents pa4/pa3 into one of optical powers at the two taps."""
    before, after = context.factory.photodiode("pa3"), context.factory.photodiode("pa4")
    scale = before.responsivity_a_per_w * before.tap_ratio / (after.responsivity_a_per_w * after.tap_ratio)
    return scale / (1.0 - before.tap_ratio)


def _loss(before: float, after: float) -> float:
    return -10.0 * log10(after / before)


def _extinctions(context: CalibrationContext) -> dict[str, float]:
    """dB, by element."""
    records = {"carver": "carver_bias", "state": "state_bias", "decoy": "decoy"}
    out = {n: -10.0 * log10(max(context.record(r).value["extinction"], 1e-9)) for n, r in records.items()}
    v = context.record("shutter").value["visibility"]
    out["shutter"] = -10.0 * log10(max((1.0 - v) / (1.0 + v), 1e-9))
    return out
