"""The receiver's detectors in the weak light of its own diode: efficiencies, losses by path, fringe, linearity, cables.

The diode's shutter is closed: its 60 dB make photons of the light that the photodiodes have just measured. Where the
two disagree, the photodiode or the detector is to blame; where they agree on too little, the path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import numpy as np

from calibration.fit import PI, Array
from calibration.receiver_optics import balanced_rad
from drivers.instruments.counter import Counter
from qmodd.selftest.bench import Bench
from qmodd.selftest.diode import SHUTTER_PART, SelfTestDiode, has_diode, lit
from qmodd.selftest.interferometer_bob import POINTS, Points, read
from qmodd.selftest.light_on_bob import LAW, NO_DIODE
from qmodd.selftest.loopback_findings import (
    BRIGHTER,
    HIGH_SHARE,
    LOW_SHARE,
    PHOTONS_HZ,
    READ_S,
    SHORT_S,
    TAPS,
    Seen,
    drive_for,
    judge,
)
from qmodd.selftest.model import Check, Finding, Level, skipped
from qmodd.selftest.receiver import (
    DETECTOR_NAMES,
    DIE_S,
    RECEIVER_HEATERS,
    SWITCHING,
    Heater,
    counted,
    counting,
    outputs_kept,
    swept,
    working_bias,
)

SETTLE_S = 0.02


async def loopback(bench: Bench) -> Sequence[Finding]:
    """Photodiodes bright, then detectors weak, at the same set points."""
    points, law = cast("Points | None", bench.notes.get(POINTS)), bench.notes.get(LAW)
    if not has_diode(bench) or points is None or law is None:
        why = "photodiodes and heaters gave no set points" if has_diode(bench) else NO_DIODE
        return [skipped("loopback", "detectors", why)]
    async with outputs_kept(bench), counting(bench):
        for channel in RECEIVER_HEATERS:
            await Heater(bench, channel).set(0.0)
        await _set(bench, points, basis=PI / 2.0, split=0.0, combine=PI / 2.0)
        async with lit(bench):
            bright = await read(bench)
        seen = Seen(np.array([bright[t] for t in TAPS]))
        async with lit(bench, 0.0, attenuated=True) as diode:
            await _count(bench, diode, points, law, seen)
    return judge(bench, points, law, seen)


async def _set(bench: Bench, points: Points, **phases: float) -> None:
    for channel, target in phases.items():
        await Heater(bench, channel).set(points.power(bench, channel, target))
    await bench.context.settle()


async def _count(bench: Bench, diode: SelfTestDiode, points: Points, law: tuple[float, float], seen: Seen) -> None:
    chosen = working_bias(bench, bench.notes.get(SWITCHING))
    low, bright = drive_for(law, PHOTONS_HZ), drive_for(law, BRIGHTER * PHOTONS_HZ)

    async def rates(volts: float, seconds: float = SHORT_S) -> Array:
        await diode.drive(volts)
        await bench.sleep(SETTLE_S)
        return await counted(bench, seconds) - seen.background

    await diode.bias_detectors(chosen)
    await bench.sleep(SETTLE_S)
    seen.background = await counted(bench, SHORT_S)
    await diode.drive(low)
    await bench.sleep(SETTLE_S)
    seen.volts = await bench.module.detectors.read_bias_voltage()
    await _opinions(bench, seen)
    seen.bright = await rates(bright, READ_S)
    for share, name in ((LOW_SHARE, "low"), (HIGH_SHARE, "high")):
        switching = bench.notes.get(SWITCHING)
        if switching is not None:
            await diode.bias_detectors([min(share * float(a), c) for a, c in zip(switching, chosen, strict=True)])
            setattr(seen, name, await rates(low))
    await diode.bias_detectors(chosen)
    await _set(bench, points, combine=0.0)
    seen.to_dx0 = await rates(low)
    await _set(bench, points, combine=PI / 2.0, basis=0.0)
    seen.to_dz = await rates(low)
    await _set(bench, points, basis=PI)
    seen.to_x = await rates(low)
    await _set(bench, points, split=balanced_rad(points.long))
    powers, read_ = await swept(bench, "phase", lambda: _by_name(bench, seen.background), DIE_S)
    seen.fringe = powers, np.array([read_[n] for n in DETECTOR_NAMES])
    seen.after = await rates(0.0)


async def _by_name(bench: Bench, background: Array) -> dict[str, float]:
    return dict(zip(DETECTOR_NAMES, (await counted(bench, SHORT_S) - background).tolist(), strict=True))


async def _opinions(bench: Bench, seen: Seen) -> None:
    """The same light by the time tagger, the bias controller and the universal counter."""
    tagged, controller = await asyncio.gather(counted(bench, READ_S), bench.module.detectors.read_rates(READ_S / 3.0))
    seen.tagged, seen.controller = tagged - seen.background, np.asarray(controller) - seen.background
    if bench.has("counter"):
        counter = cast(Counter, bench.module.devices["counter"])
        for d, channel in ((0, 1), (1, 2)):
            seen.counter[d] = await counter.count(READ_S / 2.0, channel) / (READ_S / 2.0) - seen.background[d]


_BOB = ("bob",)
CHECKS = (
    Check(
        "receiver loopback",
        Level.LIGHT_ON,
        loopback,
        ("detectors", "time_tagger", "bias_dac", "heater_dac"),
        _BOB,
        after=(SHUTTER_PART, "shutter", "interlock"),
        budget_s=20.0,
    ),
)
