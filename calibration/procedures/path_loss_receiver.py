"""Insertion loss of the link and of the receiver's paths, by counts and the announced mean photon number."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, log, log10, pi, sin, sqrt
from typing import ClassVar

import numpy as np

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.plot import Figure, Plot, Series
from calibration.procedure import Disturbs, Procedure, Raw
from calibration.procedures.receiver_splits import X0, read_bins
from calibration.procedures.tags import BRIGHT_RATE, choose_scale, tagging
from calibration.record import Record, diagonal
from drivers.roles import LightMode

READ_S = 0.1
# Usual loss of the receiver's entrance and Z arm, and a detector's efficiency (pair A3, A7), dB, with their spread:
# what is left of the whole loss after them is the fibre's.
USUAL_Z_DB, USUAL_SIGMA_DB = 2.6 + 0.35 + 0.9 + 0.125, 0.45
# Mean photon number of a signal as the factory's constant gives it, relative.
MU_SIGMA = 0.006
# Most that a path may lose, dB: the long arm against the short one, X against Z, whole link.
LONG_MOST_DB, X_MOST_DB, LINK_MOST_DB = 3.0, 3.0, 60.0
# Clicks beside the gates, dead time and the attenuator's own error far from its working point, dB: this is a budget's
# figure, not a measurement of the fibre.
LINK_SIGMA_DB = 0.3
DB = 10.0 / log(10.0)


class PathLossReceiver(Procedure):
    """Clicks by path with X light: whole loss from the transmitter's output to DZ's clicks, the X arm against the Z
    arm, the long arm against the short one (reference control C, pair A3). The fibre's share is what usual values of
    the receiver leave. Names the path that loses too much, or the fibre without light.
    """

    name: ClassVar[str] = "path_loss"
    needs: ClassVar[tuple[str, ...]] = ("crosstalk_trim",)
    valid_s: ClassVar[float] = 30 * 86_400.0
    disturbs: ClassVar[Disturbs] = Disturbs.LINK
    deferred: ClassVar[bool] = True
    cost_s: ClassVar[float] = 0.8
    equation: ClassVar[str] = "loss = -10 log10(clicks / (slots mu scale share)), share: of the basis splitter"

    async def calibrate(self, context: CalibrationContext) -> Record:
        scale = await choose_scale(context, X0, BRIGHT_RATE)
        async with tagging(context):
            seen = await read_bins(context, READ_S)
        await context.need_light().set(LightMode.OFF)
        s = context.settings
        slots = READ_S / (s.symbol_period_ps * 1e-12)
        photons = slots * s.mu_signal * scale
        kappa = s.basis_split
        arms, arms_sigma = seen.arms()
        split = context.record("arm_split").value
        # The input coupler's own ratio at its set point; what is left is the arms'.
        phase = split["phi0_rad"] + pi * split["power_w"] / split["p_pi_w"]
        coupler = 2.0 * log(abs(sin(phase / 2.0) / sin((pi - phase) / 2.0)))
        z = float(seen.z.sum())
        x = float(seen.x.sum())
        through = 1.0 - sin(phase / 2.0) ** 2 * (1.0 - split["long_transmission"])
        value = {
            "link_db": -10.0 * log10(z / (photons * (1.0 - kappa))),
            "x_over_z_db": -10.0 * log10(x / z * (1.0 - kappa) / kappa / through),
            "long_over_short_db": DB * (arms + coupler),
            "scale": scale,
            "mu": s.mu_signal,
        }
        value["fibre_db"] = value["link_db"] - USUAL_Z_DB
        link = hypot(DB * sqrt(1.0 / z), DB * MU_SIGMA, LINK_SIGMA_DB)
        sigmas = [link, DB * sqrt(1.0 / x + 1.0 / z + 0.02**2), DB * arms_sigma, hypot(link, USUAL_SIGMA_DB)]
        self._judge(value)
        return await self.make_record(
            context,
            value,
            seen.row(),
            names=("link_db", "x_over_z_db", "long_over_short_db", "fibre_db"),
            covariance=diagonal(sigmas),
        )

    def _judge(self, value: dict[str, float]) -> None:
        """Raises CalibrationRefused, naming the path, what was read and the limit."""
        paths = (
            ("link_db", "transmitter's output to detector dz", LINK_MOST_DB),
            ("x_over_z_db", "X arm beyond the Z arm", X_MOST_DB),
            ("long_over_short_db", "long arm beyond the short one", LONG_MOST_DB),
        )
        for name, path, most in paths:
            if value[name] > most:
                raise CalibrationRefused(self.name, f"{path}: {value[name]:.1f} dB of loss; the limit is {most:.1f} dB")

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        names = ("z0", "z1", "x00", "x01", "x02", "x10", "x11", "x12")
        clicks = [float(np.ravel(raw[n])[0]) for n in names]
        title = f"Clicks by path: {', '.join(names)}"
        return [Plot(title, "path", "clicks (1)", [Series("clicks", [float(k) for k in range(8)], clicks)])]
