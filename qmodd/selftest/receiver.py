"""What the receiver's checks share: heaters in watts, photodiodes in watts, detectors one by one, outputs restored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np

from calibration.fit import Array, Resistance
from calibration.names import HEATERS, PHOTODIODES
from qmodd.selftest.bench import Bench
from qmodd.selftest.diode import bias_of
from qmodd.selftest.heater_checks import NOTE, nominal

DIODES = PHOTODIODES["bob"]
RECEIVER_HEATERS = HEATERS["bob"]
DETECTOR_NAMES = ("DZ", "DX0", "DX1")
# By name in `Bench.notes`: A, (3,), the largest bias at which each detector was superconducting.
SWITCHING = "detector_switching_a"
# Of the switching current: on the plateau (an error function about 0.72, 0.08 wide), below latching (pair A7); and
# what every good wire carries, A.
WORKING_SHARE, SAFE_BIAS_A = 0.90, 15e-6
SAMPLES = 4
# Heater at its middle power for this long: the die is then about as warm as it stays during a sweep.
WARM_S = 0.15
# For what answers to the die: until it has forgotten the heaters' set points before, s (0.5 s to 1/e).
DIE_S = 1.5
# As shares of the range, uneven against aliasing, and the order that keeps the die's mean temperature.
SHARES = np.array([0.0, 0.06, 0.14, 0.24, 0.33, 0.42, 0.50, 0.61, 0.70, 0.78, 0.88, 0.97])
ORDER = np.array([6, 5, 7, 4, 8, 3, 9, 2, 10, 1, 11, 0])
# Signal and rail: beyond this an amplifier does not tell its current any more, V.
RAILED_V = 1.195


@dataclass(frozen=True)
class Heater:
    """One heater in watts: by this run's I-V or its record, which `heater_checks.resistances` has put into the notes,
    else by the population."""

    bench: Bench
    channel: str

    @property
    def law(self) -> Resistance:
        found: Resistance = self.bench.notes.get(NOTE, {}).get(self.channel, nominal())
        return found

    @property
    def most_w(self) -> float:
        settings, heaters = self.bench.context.settings, self.bench.context.heaters
        return min(settings.heater_max_power_w, self.law.power(0.999 * heaters.max_current_a))

    async def set(self, watts: float) -> None:
        """Raises OutOfRange, BusFault, Timeout."""
        wanted = min(max(watts, 0.0), self.most_w)
        await self.bench.context.heaters.set_current(self.channel, self.law.current(wanted))


@asynccontextmanager
async def outputs_kept(bench: Bench) -> AsyncIterator[None]:
    """Heaters, input shutter and detectors' bias come back as they were found."""
    heaters, biases = bench.context.heaters, bench.context.biases
    currents = {c: heaters.current(c) for c in RECEIVER_HEATERS}
    shutter, bias = biases.voltage("shutter"), bias_of(bench.module.detectors)
    try:
        yield
    finally:
        for channel, amperes in currents.items():
            await heaters.set_current(channel, amperes)
        await biases.set_voltage("shutter", shutter)
        await bench.module.detectors.set_bias(bias)


async def currents(bench: Bench, samples: int = SAMPLES) -> dict[str, float]:
    """Photocurrents of pb0 to pb3, A, dark currents included; infinite at an amplifier's rail."""
    volts = await bench.context.adc.read_volts(samples)
    factory = bench.context.factory
    return {n: factory.photodiode(n).current(volts[n]) if volts[n] < RAILED_V else np.inf for n in DIODES}


def watts(bench: Bench, amperes: Mapping[str, float], dark: Mapping[str, float]) -> dict[str, float]:
    """Light in the waveguide at each tap, W, by the factory's responsivities and taps."""
    out = {}
    for name in DIODES:
        law = bench.context.factory.photodiode(name)
        out[name] = (amperes[name] - dark[name]) / (law.responsivity_a_per_w * law.tap_ratio)
    return out


async def swept(
    bench: Bench, channel: str, read: Callable[[], Awaitable[Mapping[str, float]]], warm_s: float = WARM_S
) -> tuple[Array, dict[str, Array]]:
    """(powers ascending, W; readings by name in that order) over the range of one heater, which stays at its last
    point. In an order that keeps the die's mean temperature, to which the interferometer answers by 0.7 deg/mK."""
    heater = Heater(bench, channel)
    powers = SHARES * heater.most_w
    await heater.set(float(powers[ORDER[0]]))
    await bench.sleep(warm_s)
    rows: dict[int, Mapping[str, float]] = {}
    for k in ORDER:
        await heater.set(float(powers[k]))
        await bench.context.settle()
        rows[int(k)] = await read()
    return powers, {n: np.array([rows[k][n] for k in range(len(powers))]) for n in rows[0]}


async def counted(bench: Bench, seconds: float) -> Array:
    """Counts/s of DZ, DX0, DX1 by the time tagger, which runs; shape (3,)."""
    tags, clock = bench.context.need_tags(), bench.clock
    before, began = await tags.counts(), clock.monotonic()
    await bench.sleep(seconds)
    after, ended = await tags.counts(), clock.monotonic()
    return np.asarray((after - before) / (ended - began), dtype=np.float64)


@asynccontextmanager
async def counting(bench: Bench) -> AsyncIterator[None]:
    """The tagger runs, its strobe open; the configured strobe comes back at the end."""
    tags = bench.context.need_tags()
    await tags.run()
    await tags.set_gate(0, 0)
    try:
        yield
    finally:
        await tags.set_gate(*bench.context.settings.gate)
        await tags.stop()


def only(d: int, amperes: float) -> list[float]:
    """Bias of one detector alone."""
    return [amperes if k == d else 0.0 for k in range(len(DETECTOR_NAMES))]


def working_bias(bench: Bench, switching_a: Sequence[float] | None = None) -> list[float]:
    """A: the record's, else a share of what each was seen to carry, else one that every good wire carries."""
    record = bench.context.store.active("detector_bias")
    if record is not None:
        return [record.value[f"{n.lower()}_bias_a"] for n in DETECTOR_NAMES]
    if switching_a is not None:
        return [WORKING_SHARE * float(a) for a in switching_a]
    return [SAFE_BIAS_A] * len(DETECTOR_NAMES)
