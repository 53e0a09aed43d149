"""Die, submount, TEC and sink of one module, with the inner loop of its controller (reference pair A6).

Positive current cools the submount. The controller regulates at 10 Hz on its own thermistor; the plant is stepped every
10 ms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sim.jit import njit
from sim.physics.random64 import State, normal, state_from

Floats = npt.NDArray[np.float64]

TICK_S = 0.010
CONTROL_TICKS = 10
# Columns of the state of a module.
DIE, SUBMOUNT, SENSOR, SINK, INTEGRAL, CURRENT, MEASURED = range(7)
# Columns of what acts on it.
ENABLED, TARGET, GAIN, RESET, LIMIT, SIGN, HEAT, SINK_FACTOR, STATIC, PUMPING, PARTED, OFFSET, BARE = range(13)
DIE_J_PER_K, DIE_K_PER_W = 0.05, 1.0
SUBMOUNT_J_PER_K, SINK_J_PER_K, SINK_K_PER_W = 8.0, 250.0, 1.5
SEEBECK_V_PER_K, TEC_OHM, TEC_W_PER_K = 0.0133, 1.03, 0.068
SUBMOUNT_LEAK, DIE_LEAK = 0.010, 0.0015
SENSOR_LAG_S, SENSOR_NOISE_K = 0.5, 0.3e-3
# What the controller reads from an open thermistor; what its output gives into an open circuit.
OPEN_THERMISTOR_C, COMPLIANCE_V = -60.0, 8.0
ZERO_C = 273.15


@njit(nogil=True, cache=True)
def run_plant(
    first_tick: int, ticks: int, ambient: float, act: Floats, state: Floats, rng: State, noise: float
) -> None:
    """Step one plant. act: shape (13,), state: shape (7,), changed in place; noise: K rms of the thermistor reading.

    A finite STATIC is the current that is given instead of regulation; the integral then waits at 0. PUMPING: factor on
    the element's pumped heat, its resistance growing as much; PARTED: no current flows; BARE: no thermistor.
    """
    for tick in range(first_tick, first_tick + ticks):
        if tick % CONTROL_TICKS == 0:
            state[MEASURED] = state[SENSOR] + noise * normal(rng) + act[OFFSET]
            if act[BARE] != 0.0:
                state[MEASURED] = OPEN_THERMISTOR_C
            if act[ENABLED] == 0.0:
                state[CURRENT] = 0.0
                state[INTEGRAL] = 0.0
            elif not math.isnan(act[STATIC]):
                state[CURRENT] = min(act[LIMIT], max(-act[LIMIT], act[STATIC]))
                state[INTEGRAL] = 0.0
            else:
                wish = act[GAIN] * (state[MEASURED] - act[TARGET])
                u = wish + state[INTEGRAL]
                if abs(u) < act[LIMIT]:
                    state[INTEGRAL] += wish / act[RESET] * TICK_S * CONTROL_TICKS
                state[CURRENT] = min(act[LIMIT], max(-act[LIMIT], u))
            if act[PARTED] != 0.0:
                state[CURRENT] = 0.0
        i = state[CURRENT] * act[SIGN]
        seebeck, ohm = SEEBECK_V_PER_K * act[PUMPING], TEC_OHM / act[PUMPING]
        die, submount, sink = state[DIE], state[SUBMOUNT], state[SINK]
        leak = TEC_W_PER_K * (sink - submount)
        cooled = seebeck * i * (submount + ZERO_C) - 0.5 * i * i * ohm - leak
        shed = seebeck * i * (sink + ZERO_C) + 0.5 * i * i * ohm - leak
        up = (die - submount) / DIE_K_PER_W
        state[DIE] += TICK_S / DIE_J_PER_K * (act[HEAT] - up - DIE_LEAK * (die - ambient))
        state[SUBMOUNT] += TICK_S / SUBMOUNT_J_PER_K * (up - cooled - SUBMOUNT_LEAK * (submount - ambient))
        state[SINK] += TICK_S / SINK_J_PER_K * (shed - (sink - ambient) / (SINK_K_PER_W * act[SINK_FACTOR]))
        state[SENSOR] += TICK_S / SENSOR_LAG_S * (submount - state[SENSOR])


class Stage(Protocol):
    """What a part of the world asks of the whole: to be brought to the present before it is read or changed."""

    ambient_c: float

    def advance(self) -> None:
        """Bring the world to clock.now()."""
        ...

    def before_change(self) -> None:
        """As `advance`, and close what was computed for the state that is about to change."""
        ...


@dataclass(frozen=True)
class TecWiring:
    """Outside influences on a plant: reversed leads, lost fan (factor on the sink's thermal resistance), a degraded
    Peltier element (factor on what it pumps) or an open one; a thermistor that reads too much (K), is open, or noisy
    (K rms)."""

    reversed: bool = False
    sink_factor: float = 1.0
    pumping: float = 1.0
    parted: bool = False
    offset_k: float = 0.0
    bare: bool = False
    noise_k: float = 0.0


class ThermalPlant:
    """One module's plant and its `TecPort`. Start: everything off, at `start_c`."""

    def __init__(
        self, stage: Stage, start_c: float, generator: np.random.Generator, noise: float = SENSOR_NOISE_K
    ) -> None:
        self._stage = stage
        self.state = np.full(7, float(start_c))
        self.state[[INTEGRAL, CURRENT]] = 0.0
        self.act = np.zeros(13)
        self.act[STATIC] = math.nan
        self.act[[TARGET, GAIN, RESET, LIMIT, SIGN, SINK_FACTOR, PUMPING]] = (25.0, 0.95, 8.8, 2.0, 1.0, 1.0, 1.0)
        self._rng = state_from(generator)
        self._noise = noise
        self._polarity = 1
        self._wiring = TecWiring()

    def run(self, first_tick: int, ticks: int, ambient: float) -> None:
        noise = max(self._noise, self._wiring.noise_k)
        run_plant(first_tick, ticks, ambient, self.act, self.state, self._rng, noise)

    def set_wiring(self, wiring: TecWiring) -> None:
        self._wiring = wiring
        self.act[SINK_FACTOR] = wiring.sink_factor
        self.act[[PUMPING, OFFSET]] = wiring.pumping, wiring.offset_k
        self.act[[PARTED, BARE]] = wiring.parted, wiring.bare
        self._sign()

    def set_heat(self, watts: float) -> None:
        """Sum of the heaters on the die, W."""
        self.act[HEAT] = watts

    @property
    def die_c(self) -> float:
        return float(self.state[DIE])

    @property
    def submount_c(self) -> float:
        return float(self.state[SUBMOUNT])

    def _sign(self) -> None:
        self.act[SIGN] = -self._polarity if self._wiring.reversed else self._polarity

    def _write(self, column: int, value: float) -> None:
        if not math.isfinite(value):
            raise ValueError(f"TEC setting {value!r} is not a finite number")
        self._stage.advance()
        self.act[column] = value

    def _read(self, column: int) -> float:
        self._stage.advance()
        return float(self.state[column])

    @property
    def enabled(self) -> bool:
        return bool(self.act[ENABLED])

    @enabled.setter
    def enabled(self, on: bool) -> None:
        self._write(ENABLED, float(on))

    @property
    def target_c(self) -> float:
        return float(self.act[TARGET])

    @target_c.setter
    def target_c(self, value: float) -> None:
        self._write(TARGET, value)

    @property
    def kp_a_per_k(self) -> float:
        return float(self.act[GAIN])

    @kp_a_per_k.setter
    def kp_a_per_k(self, value: float) -> None:
        self._write(GAIN, value)

    @property
    def ti_s(self) -> float:
        return float(self.act[RESET])

    @ti_s.setter
    def ti_s(self, value: float) -> None:
        # An integral time of 0 means "no integral part" to the controller.
        self._write(RESET, value if value > 0.0 else 1e12)

    @property
    def current_limit_a(self) -> float:
        return float(self.act[LIMIT])

    @current_limit_a.setter
    def current_limit_a(self, value: float) -> None:
        self._write(LIMIT, abs(value))

    @property
    def static_a(self) -> float | None:
        """Current given instead of regulation, A; None while it regulates. Regulation begins with no integral."""
        value = float(self.act[STATIC])
        return None if math.isnan(value) else value

    @static_a.setter
    def static_a(self, value: float | None) -> None:
        self._stage.advance()
        if value is not None and not math.isfinite(value):
            raise ValueError(f"TEC current {value!r} is not a finite number")
        self.act[STATIC] = math.nan if value is None else value

    @property
    def polarity(self) -> int:
        return self._polarity

    @polarity.setter
    def polarity(self, value: int) -> None:
        self._stage.advance()
        self._polarity = 1 if value >= 0 else -1
        self._sign()

    @property
    def object_c(self) -> float:
        """Thermistor as the controller last read it, lag and noise included."""
        return self._read(MEASURED)

    @property
    def sink_c(self) -> float:
        return self._read(SINK)

    @property
    def current_a(self) -> float:
        return self._read(CURRENT)

    @property
    def voltage_v(self) -> float:
        """Across the element as the controller sees it: ohmic part and Seebeck voltage."""
        self._stage.advance()
        if self._wiring.parted and self.enabled:
            return COMPLIANCE_V
        pumping = float(self.act[PUMPING])
        seebeck = SEEBECK_V_PER_K * pumping * (self.state[SINK] - self.state[SUBMOUNT])
        return float(self.state[CURRENT] * TEC_OHM / pumping + self.act[SIGN] * seebeck)
