"""The receiver's self-test diode: its drive, its shutter, and the rule that keeps its light off biased detectors.

At full drive with its shutter open it is some 10 uW at the receiver's input, photons by the 1e13 a second: a biased
detector latches and may not survive it. So either the shutter is open and no detector has bias, or detectors are biased
and the shutter is closed (60 dB). The hardware holds the shutter's drive by the line `detectors_unbiased`; the same
rule here refuses with a reason, before anything is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from drivers.errors import DriverError, Refused
from drivers.roles import DetectorBank, DigitalIO, Outputs, VoltageBank
from qmodd.selftest.bench import Bench

DRIVE, SHUTTER = "diode", "diode_shutter"
PART, SHUTTER_PART = "self-test diode", "diode shutter"
UNBIASED = "detectors_unbiased"
# Full drive, and both ends of the shutter, V.
FULL_V, OPEN_V, CLOSED_V = 5.0, 5.0, 0.0
# Below this the hardware's line calls a detector unbiased, A.
UNBIASED_A = 1e-6
# From this drive of the shutter on it lets light by that a biased detector should not see, V.
AJAR_V = 0.05
# The shutter's mirror and the diode itself follow within this, s.
SETTLE_S = 0.01


@dataclass
class SelfTestDiode:
    """Use it through `self_test_diode`, which leaves it off and closed however the work ends."""

    biases: VoltageBank
    detectors: DetectorBank
    platform: DigitalIO

    async def drive(self, volts: float) -> None:
        """0 to 5 V; threshold at about 1 V. Raises OutOfRange, BusFault, Timeout."""
        await self.biases.set_voltage(DRIVE, volts)

    async def open(self) -> None:
        """Raises Refused while a detector is biased or the hardware's line says so; nothing is written then."""
        if biased := [f"{n} {a * 1e6:.1f} uA" for n, a in self.biased().items()]:
            raise Refused(f"{SHUTTER_PART}: stays closed while detectors are biased ({', '.join(biased)})")
        if UNBIASED in self.platform.lines and not await self.platform.read(UNBIASED):
            raise Refused(f"{SHUTTER_PART}: stays closed: the line {UNBIASED} says that a detector is biased")
        await self.biases.set_voltage(SHUTTER, OPEN_V)

    async def force_open(self) -> None:
        """Past every check of the software: only to prove that the hardware holds it shut."""
        await getattr(self.biases, "bare", self.biases).set_voltage(SHUTTER, OPEN_V)

    async def close(self) -> None:
        await self.biases.set_voltage(SHUTTER, CLOSED_V)

    async def bias_detectors(self, bias_a: Sequence[float]) -> None:
        """Raises Refused while the diode's shutter is not closed (nothing written), and what the controller raises."""
        volts = self.biases.voltage(SHUTTER)
        if volts > AJAR_V and max(bias_a) >= UNBIASED_A:
            raise Refused(f"detectors: no bias while the {SHUTTER_PART} is open ({volts:.2f} V)")
        await self.detectors.set_bias(bias_a)

    def biased(self) -> dict[str, float]:
        """Detectors with bias by what was last written, A."""
        return {n: a for n, a in zip(self.detectors.channels, bias_of(self.detectors), strict=True) if a >= UNBIASED_A}

    async def off(self) -> None:
        """Dark, then closed; the second also when the first fails. Raises the first error."""
        faults: list[DriverError] = []
        for channel, volts in ((DRIVE, 0.0), (SHUTTER, CLOSED_V)):
            try:
                await self.biases.set_voltage(channel, volts)
            except DriverError as e:
                faults.append(e)
        if faults:
            raise faults[0]


def bias_of(detectors: DetectorBank) -> tuple[float, ...]:
    """Last currents written, A."""
    assert isinstance(detectors, Outputs)
    return tuple(detectors.output(channel).value for channel in detectors.channels)


def has_diode(bench: Bench) -> bool:
    """Whether this module's configuration has the diode and its shutter, and detectors."""
    return {DRIVE, SHUTTER} <= set(bench.context.biases.channels) and bench.has("detectors")


@asynccontextmanager
async def self_test_diode(bench: Bench) -> AsyncIterator[SelfTestDiode]:
    """The diode, dark and closed at first, and dark and closed at the end: after an error and a cancellation, too.

    Raises what its channels raise when they are switched off.
    """
    module = bench.module
    diode = SelfTestDiode(module.biases, module.detectors, module.platform)
    try:
        await diode.off()
        yield diode
    finally:
        await _surely(diode.off())


async def _surely(work: Coroutine[Any, Any, None]) -> None:
    """Run to its end whatever is cancelled meanwhile; the cancellation is raised after it."""
    running, cancelled = asyncio.ensure_future(work), False
    while not running.done():
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            cancelled = True
    running.result()
    if cancelled:
        raise asyncio.CancelledError


@asynccontextmanager
async def lit(bench: Bench, volts: float = FULL_V, *, attenuated: bool = False) -> AsyncIterator[SelfTestDiode]:
    """The diode shines into the receiver: bright for the photodiodes, with every bias off, or `attenuated` by its
    closed shutter for detectors, which the caller biases. The receiver's input shutter and the detectors' bias come
    back as they were found.
    """
    context, detectors = bench.context, bench.module.detectors
    shutter, bias = context.biases.voltage("shutter"), bias_of(detectors)
    diode: SelfTestDiode | None = None
    try:
        async with self_test_diode(bench) as diode:
            if not attenuated:
                await detectors.set_bias([0.0] * len(bias))
                await diode.open()
            await context.biases.set_voltage("shutter", context.settings.shutter_open_v)
            await diode.drive(volts)
            await bench.sleep(SETTLE_S)
            yield diode
    finally:
        if diode is not None:
            await context.biases.set_voltage("shutter", shutter)
            # Refused where its shutter could not be closed: then they stay without.
            await diode.bias_detectors(bias)
