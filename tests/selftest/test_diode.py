"""The self-test diode is never open on biased detectors, and dark and closed after whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from drivers.errors import BusFault, Refused
from qmodd.selftest.bench import Bench
from qmodd.selftest.diode import DRIVE, FULL_V, SHUTTER, SelfTestDiode, has_diode, lit, self_test_diode
from qmodd.soak import Run
from tests.selftest.bench import on_bench

BIAS = [15e-6, 0.0, 0.0]


class Output:
    def __init__(self) -> None:
        self.value = 0.0


class Detectors:
    """What was asked of them last; `line` is the hardware's."""

    channels = ("DZ", "DX0", "DX1")

    def __init__(self) -> None:
        self.outputs = {c: Output() for c in self.channels}

    async def set_bias(self, bias_a: Sequence[float]) -> None:
        for channel, amperes in zip(self.channels, bias_a, strict=True):
            self.outputs[channel].value = amperes

    def output(self, channel: str) -> Output:
        return self.outputs[channel]


class Biases:
    channels = ("shutter", DRIVE, SHUTTER)

    def __init__(self) -> None:
        self.volts = dict.fromkeys(self.channels, 0.0)
        self.broken: set[str] = set()
        self.wait_s = 0.0

    async def set_voltage(self, channel: str, volts: float) -> None:
        if channel in self.broken:
            raise BusFault(f"bias_dac: {channel}")
        await asyncio.sleep(self.wait_s)
        self.volts[channel] = volts

    def voltage(self, channel: str) -> float:
        return self.volts[channel]


class Platform:
    lines = ("detectors_unbiased",)

    def __init__(self) -> None:
        self.unbiased = True

    async def read(self, line: str) -> bool:
        return self.unbiased


class Rig:
    """A bench with nothing behind it."""

    def __init__(self) -> None:
        self.detectors, self.biases, self.platform = Detectors(), Biases(), Platform()
        module = SimpleNamespace(detectors=self.detectors, biases=self.biases, platform=self.platform)
        settings = SimpleNamespace(shutter_open_v=5.0)
        context = SimpleNamespace(biases=self.biases, settings=settings)
        self.bench = cast(Bench, SimpleNamespace(module=module, context=context, sleep=asyncio.sleep))

    @property
    def diode(self) -> SelfTestDiode:
        return SelfTestDiode(cast(Any, self.biases), cast(Any, self.detectors), cast(Any, self.platform))

    @property
    def dark(self) -> bool:
        return self.biases.volts[DRIVE] == 0.0 and self.biases.volts[SHUTTER] == 0.0


async def test_it_does_not_open_while_a_detector_is_biased() -> None:
    rig = Rig()
    await rig.detectors.set_bias(BIAS)
    with pytest.raises(Refused, match=r"biased \(DZ 15.0 uA\)"):
        await rig.diode.open()
    assert rig.biases.volts[SHUTTER] == 0.0


async def test_it_does_not_open_while_the_line_says_biased() -> None:
    rig = Rig()
    rig.platform.unbiased = False
    with pytest.raises(Refused, match="detectors_unbiased"):
        await rig.diode.open()
    assert rig.biases.volts[SHUTTER] == 0.0


async def test_no_bias_while_it_is_open() -> None:
    rig = Rig()
    await rig.diode.open()
    with pytest.raises(Refused, match="no bias while"):
        await rig.diode.bias_detectors(BIAS)
    assert not rig.diode.biased()
    await rig.diode.bias_detectors([0.0, 0.0, 0.0])
    await rig.diode.close()
    await rig.diode.bias_detectors(BIAS)
    assert rig.diode.biased() == {"DZ": 15e-6}


async def test_it_is_closed_although_its_drive_cannot_be_written() -> None:
    rig = Rig()
    await rig.diode.open()
    rig.biases.broken = {DRIVE}
    with pytest.raises(BusFault, match=DRIVE):
        await rig.diode.off()
    assert rig.biases.volts[SHUTTER] == 0.0


async def test_light_is_off_and_bias_back_after_an_error() -> None:
    rig = Rig()
    await rig.detectors.set_bias(BIAS)
    with pytest.raises(ZeroDivisionError):
        async with lit(rig.bench):
            assert rig.biases.volts == {"shutter": 5.0, DRIVE: FULL_V, SHUTTER: 5.0}
            assert not rig.diode.biased()
            raise ZeroDivisionError
    assert rig.dark
    assert rig.biases.volts["shutter"] == 0.0
    assert rig.diode.biased() == {"DZ": 15e-6}


async def test_bias_stays_away_when_the_shutter_could_not_be_closed() -> None:
    rig = Rig()
    await rig.detectors.set_bias(BIAS)
    with pytest.raises(Refused, match="no bias while"):
        async with lit(rig.bench):
            rig.biases.broken = {SHUTTER}
    assert not rig.diode.biased()


@pytest.mark.parametrize("cancels", [1, 3])
async def test_it_is_off_and_closed_after_cancellations(cancels: int) -> None:
    """Also when a second cancellation comes while it is being switched off."""
    rig = Rig()
    begun = asyncio.Event()

    async def shine() -> None:
        async with self_test_diode(rig.bench) as diode:
            await diode.open()
            await diode.drive(FULL_V)
            rig.biases.wait_s = 0.001
            begun.set()
            await asyncio.sleep(3600.0)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(shine())
        await begun.wait()
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0)
    assert task.cancelled()
    assert rig.dark


def test_a_module_has_it_by_its_configuration() -> None:
    async def work(bench: Bench, _run: Run) -> tuple[bool, bool]:
        whole = has_diode(bench)
        del bench.module.devices["detectors"]
        return whole, has_diode(bench)

    assert on_bench("bob", work) == (True, False)
