"""The fibre between the modules: loss, transit time, polarisation; and what faults do to it (reference pair A7)."""

from __future__ import annotations

import math

from sim.scenario import Link

PS_PER_KM = 4.897e6  # group index 1.468
PS_PER_KM_K = 38.0
CUT_DB = 120.0


class Fibre:
    """Loss in dB and transit in ps, from drifts given by the world."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.transit_ps = round(link.km * PS_PER_KM)
        self.cut = False
        self.bend_db = 0.0
        self.walk_db = 0.0
        self.warmer_k = 0.0
        self._direction = (math.sqrt(0.5), math.sqrt(0.5), 0.0)

    def turn_polarisation(self, kick: tuple[float, float, float]) -> None:
        """Small random rotation of the state of polarisation on the sphere, rad about each axis."""
        (x, y, z), (u, v, w) = self._direction, kick
        x, y, z = x + y * w - z * v, y + z * u - x * w, z + x * v - y * u
        norm = math.sqrt(x * x + y * y + z * z)
        self._direction = (x / norm, y / norm, z / norm)

    @property
    def alignment(self) -> float:
        """Component of the state of polarisation along the receiver's lossy axis, -1 to 1."""
        return self._direction[2]

    @property
    def loss_db(self) -> float:
        if self.cut:
            return CUT_DB
        return max(0.0, self._link.loss_db + self.walk_db) + self.bend_db

    @property
    def delay_ps(self) -> float:
        """Transit beyond `transit_ps`, from the fibre's temperature, ps."""
        return PS_PER_KM_K * self._link.km * self._link.exposed * self.warmer_k
