"""Counts of the phase lock's bench, straight from the optics: the law of reference pair A4 for what a batch tells."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.context import CalibrationContext
from calibration.record import Record
from sim.physics.light import Light
from sim.physics.optics import PILOT_MINUS, PILOT_PLUS, AliceOptics, BobOptics, table
from sim.world import World

Floats = npt.NDArray[np.float64]

SLOTS_HZ = 125e6
HOLD_OFF = 5
P_X, P_DECOY = 0.25, 0.50
# Errors of the working point that calibration and its loops leave, degrees: S, splits, C, D.
RESIDUAL = (1.0, 1.0, 1.0, 0.5)
_OF_CELL = [0, 0, 1, 1, 1, 2, 2, 2]
_SATELLITES = [2, 4, 5, 7]
GATE_S = 400e-12


@dataclass(frozen=True)
class Means:
    """A second: matched X detections (state X0 X1, output DX0 DX1), pilot clicks (P+ P-, output), clicks in the
    satellite bins (output, first last)."""

    x: Floats
    pilot: Floats
    satellites: Floats

    def __add__(self, other: Means) -> Means:
        return Means(self.x + other.x, self.pilot + other.pilot, self.satellites + other.satellites)

    def times(self, share: float) -> Means:
        return Means(share * self.x, share * self.pilot, share * self.satellites)


NOTHING = Means(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2)))


def working_point(world: World) -> tuple[AliceOptics, BobOptics]:
    """Optics of this pair with every control but the phase where calibration and its loops leave it."""
    a, b = world.alice.individual, world.bob.individual
    s, split, c, d = (math.radians(e) for e in RESIDUAL)
    alice = AliceOptics(
        mu_ref=0.54,
        d_split=split,
        d_c=c,
        d_s=s,
        d_d=d,
        theta_d=2.0 * math.acos(math.sqrt(1 / 3)),
        xi_s=a.state.xi,
        leak_c=a.carver.xi**2,
        leak_d=a.decoy.xi**2,
        long=10 ** (-a.long_db / 10),
    )
    e = b.efficiency
    bob = BobOptics(
        kappa=0.26,
        common=10 ** (-b.common_db / 10),
        z=10 ** (-b.z_db / 10),
        x=10 ** (-b.x_db / 10),
        long=10 ** (-b.long_db / 10),
        d_split=split,
        v_mode=b.v_mode,
        eff_z=float(e[0]),
        eff_x0=float(e[1]),
        eff_x1=float(e[2]),
    )
    return alice, bob


def means(light: Light, pilot_every: int = 0, scale: float = 1.0) -> Means:
    """`scale`: of all but the pilot, for a rate that the link itself would not give."""
    shares = np.outer([(1 - P_X) / 2, (1 - P_X) / 2, P_X / 2, P_X / 2], [1.0 - P_DECOY, P_DECOY]).ravel()
    live = SLOTS_HZ * math.exp(-HOLD_OFF * min(float(shares @ light.lam[:8].sum(axis=1)), 1.0))
    x, pilot = np.zeros((2, 2)), np.zeros((2, 2))
    for row in range(4, 8):
        x[row // 2 - 2] += shares[row] * accepted(light.lam[row], light.darks)
    rest = shares @ light.lam[:8] + GATE_S * light.darks[_OF_CELL]
    if pilot_every:
        for i, row in enumerate((PILOT_PLUS, PILOT_MINUS)):
            pilot[i] = 0.5 / pilot_every * accepted(light.lam[row], light.darks)
    return Means(x * live * scale, pilot * live, rest[_SATELLITES].reshape(2, 2) * live * scale)


def heater_iv(context: CalibrationContext, side: Any) -> Record:
    """The heaters as they are: a power that was believed wrong shows in P_pi, which has its own accuracy here."""
    value: dict[str, float] = {}
    bank = side.heaters
    for channel, name in enumerate(context.heaters.channels):
        ohm = bank.cold_ohm(channel)
        if math.isfinite(ohm):
            value |= {f"{name}_r0_ohm": ohm, f"{name}_rho_per_w": bank.rho(channel)}
    now = context.clock.utc()
    return Record(name="heater_iv", value=value, created=now, valid_until=now + timedelta(days=30))


def accepted(row: Floats, darks: Floats) -> Floats:
    """Share of slots with this class that make an X detection in DX0, DX1 (reference pair A4); doubles fall to either
    at random. Darks within a gate of 400 ps."""
    dark = darks * GATE_S
    mid = np.array([row[3] + dark[1], row[6] + dark[2]])
    rest = np.array([row[2] + row[4], row[5] + row[7]]) + 2.0 * dark[1:]
    none_z = math.exp(-(row[0] + row[1] + 2.0 * dark[0]))
    click = np.exp(-rest) * (1.0 - np.exp(-mid))
    none = np.exp(-(rest + mid))
    only = none_z * click * none[::-1]
    both = none_z * click[0] * click[1]
    out: Floats = only + 0.5 * both
    return out


def qber_x(light: Light) -> float:
    """Without darks."""
    w = np.array([1.0 - P_DECOY, P_DECOY])
    x0, x1 = w @ light.lam[4:6], w @ light.lam[6:8]
    return float((x0[3] + x1[6]) / (x0[3] + x0[6] + x1[3] + x1[6]))


def fringe(light: Light) -> tuple[float, float]:
    """(xi, visibility) as arm_phase defines them: phases of the two states' fringes in DX0, turned by the heater."""
    turns = np.arange(8) * math.pi / 4.0
    rows = []
    for turn in turns:
        lam = table(light.alice, replace(light.bob, phi=light.bob.phi + turn), light.loss_db)
        rows.append((lam[4, 3], lam[6, 3]))
    y = np.array(rows)
    wave = np.exp(-1j * turns) @ y * 2.0 / len(turns)
    # DX0 of X0 is least where the heater is best, of X1 greatest: best at pi + xi and -xi of these phases.
    phase0, phase1 = np.angle(-wave[0]), np.angle(wave[1])
    xi = 0.5 * math.remainder(float(phase1 - phase0), 2.0 * math.pi)
    return xi, float(np.mean(np.abs(wave) / y.mean(axis=0)))
