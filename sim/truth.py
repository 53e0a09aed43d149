"""A read-only view of the world, for tests and reports only: nothing that stands in for hardware may use it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sim.physics.light import Light, qber
from sim.physics.optics import table
from sim.world import World

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Snapshot:
    """phase_error_deg: phi_A - phi_B from the phase of the least QBER_X, -180 to 180.

    qber_z, qber_x: without darks; qber_x_floor: with the phase at its optimum. mu: photons a slot at the transmitter's
    output, by class. die_c, submount_c: (alice, bob).
    """

    t: float
    qber_z: float
    qber_x: float
    qber_x_floor: float
    phase_error_deg: float
    mu: tuple[float, ...]
    loss_db: float
    share_x: float
    die_c: tuple[float, float]
    submount_c: tuple[float, float]


class Truth:
    """Looks at the present of a world; brings it to the present first."""

    def __init__(self, world: World) -> None:
        self._world = world

    def light(self) -> Light:
        self._world.advance()
        return self._world.light()

    def snapshot(self) -> Snapshot:
        light = self.light()
        error, floor = self._phase(light)
        z, x = qber(light.lam)
        modules = (self._world.alice, self._world.bob)
        return Snapshot(
            t=self._world.now(),
            qber_z=z,
            qber_x=x,
            qber_x_floor=floor,
            phase_error_deg=math.degrees(error),
            mu=tuple(float(m) for m in light.photons[:8]),
            loss_db=light.loss_db,
            share_x=light.bob.kappa,
            die_c=(modules[0].plant.die_c, modules[1].plant.die_c),
            submount_c=(modules[0].plant.submount_c, modules[1].plant.submount_c),
        )

    @property
    def phase_error_deg(self) -> float:
        return math.degrees(self._phase(self.light())[0])

    def tag_of_slot(self, slot: int) -> float:
        """Tag, ps, of a slot's early pulse at a detector without delay of its own."""
        self._world.advance()
        return self._world.bob.clicks.tag_of_slot(slot)

    def clock_offset(self) -> float:
        """Bob's clock against Alice's, relative."""
        self._world.advance()
        return self._world.bob.clicks.clock.y

    def set_points(self) -> dict[str, float]:
        """Errors of every control from its set point, rad, -pi to pi; `a_` and `b_` where both modules have one."""
        light = self.light()
        a, b = light.alice, light.bob
        errors = {"a_split": a.d_split, "shutter": a.d_shutter, "c": a.d_c, "s": a.d_s, "d": a.d_d}
        errors |= {"filter": float(self._world.alice.phases()[0]), "b_split": b.d_split, "b_combine": b.d_combine}
        return {name: math.remainder(value, 2.0 * math.pi) for name, value in errors.items()}

    @staticmethod
    def _phase(light: Light) -> tuple[float, float]:
        """(error, rad; QBER_X at the optimum). QBER_X is A - B cos(phi - optimum): three phases give all of it."""
        turns = [2.0 * math.pi * i / 3.0 for i in range(3)]
        seen = [qber(table(replace(light.alice, phi=light.alice.phi + t), light.bob, light.loss_db))[1] for t in turns]
        wave = sum(q * np.exp(1j * t) for q, t in zip(seen, turns, strict=True)) * 2.0 / 3.0
        # seen(t) = mean - |B| cos(error + t), so wave = -|B| exp(-i error)
        return float(-np.angle(-wave)), float(np.mean(seen) - abs(wave))
