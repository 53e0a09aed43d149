"""The transmitter's light as its self-test drives it: laser, photodiodes, and one-at-a-time sweeps of every actuator.

Nothing is known about the individual: a walk brings every actuator to where most light is seen, whichever photodiode
and whichever cable that is; sweeps from there record all photodiodes at once. The source drives nothing (NULL, no RF):
light of random phase, which does not interfere in the AMZI (reference pair A2). The attenuator is at its maximum.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from calibration.fit import Array
from calibration.names import HEATERS
from calibration.procedures.light import shine
from calibration.procedures.sweeps import UNEVEN, ZIGZAG
from drivers.roles import LightMode
from qmodd.selftest.bench import Bench
from qmodd.selftest.diode_checks import SATURATED_V, diodes_of
from qmodd.selftest.heater_checks import cables_of, nominal, resistances, set_power

SAMPLES = 16
HEATER_NAMES = HEATERS["alice"]
MODULATORS = ("carver", "state", "decoy")
# More than a period of any modulator's bias, V; where it is left of the middle, 0.
VOLTS = np.linspace(-5.2, 5.2, 17)
# Parts in the order in which light passes them.
UPSTREAM = (
    "laser",
    "path laser",
    "photodiode pa6",
    "heater filter",
    "path filter",
    "photodiode pa0",
    "modulator carver",
    "path amzi_input",
    "photodiode pa1",
    "modulator state",
    "modulator decoy",
    "path state",
    "photodiode pa3",
    "heater shutter",
    "path shutter",
    "photodiode pa4",
)
# Best of three settings a third of the design's period apart: within 60 degrees of a peak.
THIRDS_V = (-2.67, 0.0, 2.67)
# An actuator that changes the sum of the logarithms by less than this is none that light has to pass.
MATTERS = 1.5
# Of the laser while the shutter may be open: the least that such a laser gives.
WALK_DBM = 6.0
# Little more than a period of every good heater; three at once stay within the chip's budget of 0.4 W.
MOST_W = 0.095
# Of the walk's order: the shutter is closed to the outside as soon as there is light to see it by.
FIRST = ("shutter", "filter", "shutter", "split", "phase")
# Behind shutter and attenuator: what it sees has left, and is not to be bright.
OUTSIDE = "pa7"
# Least current that counts as brightness, A: about a dark current.
FLOOR_A = 1e-10


@dataclass
class Sweep:
    """Settings (n,) in W or V, ascending, and photocurrents by diode (n,), A, dark currents taken off."""

    x: Array
    rows: dict[str, Array]

    def depth(self, diode: str, over: str | None = None) -> float:
        """ln(largest / least) of a diode's current, of its ratio to another one's where `over` is given."""
        y = np.maximum(self.rows[diode], FLOOR_A)
        if over is not None:
            y = y / np.maximum(self.rows[over], FLOOR_A)
        return float(np.log(y.max() / y.min()))


@dataclass
class Chain:
    """`dark`: A by diode; `base`: where each actuator is left between sweeps, W or V; `sweeps` by actuator.

    `see` and `act`: which input really shows a photodiode, which output really moves an element, once exchanged cables
    have been found. `null`, `peak`: settings of each element in its own output's unit. `shade_v`: the carver's setting
    at which least light was seen. `leaky`: the attenuator does not close, and shutter and carver stay closed.
    """

    bench: Bench
    diodes: tuple[str, ...]
    dark: dict[str, float] = field(default_factory=dict)
    base: dict[str, float] = field(default_factory=dict)
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    saturated: set[str] = field(default_factory=set)
    see: dict[str, str] = field(default_factory=dict)
    act: dict[str, str] = field(default_factory=dict)
    shade_v: float | None = None
    leaky: bool = False
    null: dict[str, float] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, bench: Bench) -> Chain:
        return cls(bench, diodes_of(bench))

    async def read(self, samples: int = SAMPLES) -> dict[str, float]:
        """Photocurrents, dark taken off, A."""
        volts = await self.bench.context.adc.read_volts(samples)
        self.saturated = {d for d in self.diodes if volts[d] > SATURATED_V}
        factory = self.bench.context.factory
        return {d: factory.photodiode(d).current(volts[d]) - self.dark.get(d, 0.0) for d in self.diodes}

    async def zero(self) -> None:
        """Dark currents as they are now: the laser is off."""
        self.dark = {}
        self.dark = await self.read(64)

    async def settled(self, samples: int = SAMPLES) -> dict[str, float]:
        await self.bench.context.settle()
        return await self.read(samples)

    def watts(self, currents: Mapping[str, float], diode: str, law: str) -> float:
        """Light in front of a tap, W: `diode` is the reading, `law` whose tap and responsivity it is."""
        d = self.bench.context.factory.photodiode(law)
        return max(currents[diode], 1e-13) / d.responsivity_a_per_w / d.tap_ratio

    @property
    def bright_a(self) -> float:
        """Photocurrent behind the modulators with the carver open, A, from its sweep."""
        return float(self.sweeps[self.act["carver"]].rows[self.see["pa3"]].max())

    def upstream(self, diode: str) -> tuple[str, ...]:
        """Parts whose failure explains that nothing sound is seen at a photodiode."""
        found = UPSTREAM[: UPSTREAM.index(f"photodiode {diode}") + 1]
        dac, bias = self.bench.part("heaters"), self.bench.part("biases")
        adc = (self.bench.part("adc"), self.bench.bus("adc"), "supply")
        own = cables_of("photodiode", diode, self.diodes)
        return (*found, dac, bias, *adc, *own)

    async def element(self, name: str, x: float) -> None:
        """The element itself, whatever its cable is called; stays there."""
        await self.put(self.act.get(name, name), x)

    def dimmed(self, element: str, v_pi: float, share: float) -> float:
        """Setting, V, of a modulator for a share of its light."""
        return self.null[element] + 2.0 * v_pi / math.pi * math.asin(math.sqrt(min(1.0, max(0.0, share))))

    # actuators

    async def write(self, actuator: str, x: float) -> None:
        """Heater in W, modulator in V."""
        if actuator in HEATER_NAMES:
            await set_power(self.bench, actuator, x)
        else:
            await self.bench.context.biases.set_voltage(actuator, x)

    async def put(self, actuator: str, x: float) -> None:
        """As `write`, for good."""
        self.base[actuator] = x
        await self.write(actuator, x)

    async def top(self, heater: str) -> float:
        """Largest power, W."""
        context = self.bench.context
        law = (await resistances(self.bench)).get(heater, nominal())
        return min(MOST_W, law.power(0.999 * context.heaters.max_current_a))

    async def settings(self, actuator: str) -> Array:
        return VOLTS if actuator in MODULATORS else np.asarray(UNEVEN * await self.top(actuator))

    async def sweep(self, actuator: str, settle_s: float = 0.0) -> Sweep:
        """All diodes against one actuator; it is back at its base afterwards. settle_s: on top of what all need."""
        x = await self.settings(actuator)
        # Heaters to and fro: the die's mean temperature then stays about the same.
        order = ZIGZAG if actuator in HEATER_NAMES else np.arange(len(x))
        rows: dict[int, dict[str, float]] = {}
        try:
            for k in order:
                await self.write(actuator, float(x[k]))
                await self.bench.sleep(settle_s)
                rows[int(k)] = await self.settled()
        finally:
            await self.write(actuator, self.base.get(actuator, 0.0))
        await self.bench.context.settle()
        return Sweep(x, {d: np.array([rows[k][d] for k in range(len(x))]) for d in self.diodes})

    async def record(self, actuator: str, settle_s: float = 0.0) -> None:
        self.sweeps[actuator] = (
            await self._shaded(actuator) if actuator == "shutter" else await self.sweep(actuator, settle_s)
        )

    async def _shaded(self, shutter: str) -> Sweep:
        """Sweep of the shutter, which opens in it: with the carver closed as far as is known."""
        if self.shade_v is None:
            return await self.sweep(shutter)
        await self.write("carver", self.shade_v)
        try:
            return await self.sweep(shutter)
        finally:
            await self.write("carver", self.base["carver"])
            await self.bench.context.settle()

    # the walk to the light

    async def walk(self) -> None:
        """Twice through all actuators, each to its brightest: with two cables exchanged the second time counts. The
        first time with little light, for the shutter may be open."""
        for name in (*HEATER_NAMES, *MODULATORS):
            await self.put(name, 0.0)
        await self._laser(min(WALK_DBM, self.bench.context.settings.laser_power_dbm))
        for heaters in (FIRST, HEATER_NAMES):
            for heater in heaters:
                seen = await self._shaded(heater) if heater == "shutter" else await self.sweep(heater)
                await self.put(heater, self._brightest(seen))
            await self._coarse()
            for modulator in MODULATORS:
                seen = await self.sweep(modulator)
                await self.put(modulator, self._brightest(seen))
                if modulator == "carver":
                    self.shade_v = float(seen.x[int(np.argmin(_course(seen)))])
            await self._laser(self.bench.context.settings.laser_power_dbm)

    async def _laser(self, dbm: float) -> None:
        await self.bench.context.need_laser().set_power(dbm)
        await self.bench.context.settle()

    async def _coarse(self) -> None:
        """State and decoy modulators stand one behind the other: with one at its null nothing is seen of the other."""
        best, chosen = -np.inf, (0.0, 0.0)
        for s in THIRDS_V:
            for d in THIRDS_V:
                await self.write("state", s)
                await self.write("decoy", d)
                seen = _brightness(await self.settled(4))
                if seen > best:
                    best, chosen = seen, (s, d)
        await self.put("state", chosen[0])
        await self.put("decoy", chosen[1])

    def _brightest(self, sweep: Sweep) -> float:
        """The first setting when none is brighter than another: no heater is warmed for nothing."""
        seen = _course(sweep)
        return float(sweep.x[int(np.argmax(seen))] if np.ptp(seen) > MATTERS else sweep.x[int(np.argmin(abs(sweep.x)))])


def _brightness(row: Mapping[str, float]) -> float:
    """Sum of the logarithms: every stage that passes more light raises it, whatever the diodes are called. Light that
    leaves lowers it: the shutter's own photodiode is at its rail before the shutter is closed."""
    return float(sum((-1.0 if d == OUTSIDE else 1.0) * np.log(max(a, FLOOR_A)) for d, a in row.items()))


def _course(sweep: Sweep) -> Array:
    return np.array([_brightness({d: row[k] for d, row in sweep.rows.items()}) for k in range(len(sweep.x))])


def beside(home: float, step: float, top: float) -> float:
    """A step above, or below where a heater gives no more, W."""
    return home + step if home + step <= top else max(0.0, home - step)


async def dark_mode(bench: Bench) -> None:
    """No RF, source in NULL mode: unmodulated but incoherent light."""
    await bench.context.need_source().set_rf(carver_v=0.0, state_v=0.0, decoy_v=0.0)
    await shine(bench.context, LightMode.NULL)


async def as_found(bench: Bench, work: Callable[[Chain], Awaitable[None]]) -> Chain:
    """Runs `work` with the attenuator at its maximum; heaters, biases and laser are as before afterwards, the source
    drives nothing."""
    context = bench.context
    heaters = {c: context.heaters.current(c) for c in HEATER_NAMES}
    volts = {c: context.biases.voltage(c) for c in (*MODULATORS, "voa")}
    emitting = (await context.need_laser().read()).emitting
    chain = Chain.of(bench)
    try:
        await context.biases.set_voltage("voa", context.biases.limits("voa")[1])
        await work(chain)
    finally:
        if not emitting:
            await context.need_laser().enable(False)
        await dark_mode(bench)
        await shine(context, LightMode.OFF)
        for c, v in volts.items():
            if c != "voa":
                await context.biases.set_voltage(c, v)
        for c, a in heaters.items():
            await context.heaters.set_current(c, a)
        await context.biases.set_voltage("voa", volts["voa"])
    return chain
