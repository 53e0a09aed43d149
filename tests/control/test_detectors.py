"""Latched detectors: reset, told, limited."""

from dataclasses import dataclass, field

import pytest

from qmodd.control.detectors import MOST_RESETS, LatchWatch
from qmodd.control.loop import LoopFault

BIAS = (20e-6, 19e-6, 21e-6)


@dataclass
class Bank:
    """Latches as real ones: the voltage goes only when the bias was taken away."""

    latched: set[int] = field(default_factory=set)
    stuck: bool = False
    channels: tuple[str, ...] = ("DZ", "DX0", "DX1")
    written: list[list[float]] = field(default_factory=list)

    async def read_bias_voltage(self) -> tuple[float, ...]:
        return tuple(1.5 if i in self.latched else 0.001 for i in range(3))

    async def set_bias(self, bias_a: list[float]) -> None:
        self.written.append(list(bias_a))
        if not self.stuck:
            self.latched -= {i for i, b in enumerate(bias_a) if b == 0.0}


def watch(bank: Bank, said: list[tuple[bool, str]], bias: tuple[float, ...] | None = BIAS) -> LatchWatch:
    async def sleep(_: float) -> None:
        return None

    return LatchWatch(bank, lambda: bias, lambda on, names: said.append((on, names)), sleep)


async def test_only_the_latched_one_loses_its_bias_and_gets_it_back() -> None:
    bank, said = Bank({1}), []
    loop = watch(bank, said)
    await loop.step(0.0)
    assert bank.written == [[BIAS[0], 0.0, BIAS[2]], list(BIAS)]
    assert said == [(True, "DX0"), (False, "DX0")]
    assert loop.resets == 1
    await loop.step(1.0)
    assert len(bank.written) == 2


async def test_nothing_is_done_out_of_service() -> None:
    bank = Bank({0})
    await watch(bank, [], bias=None).step(0.0)
    assert bank.written == []


async def test_a_detector_that_latches_again_and_again_is_a_fault() -> None:
    bank = Bank({0, 2}, stuck=True)
    loop = watch(bank, [])
    for k in range(MOST_RESETS):
        await loop.step(float(k))
    with pytest.raises(LoopFault, match="DZ, DX1 latched 11 times"):
        await loop.step(11.0)


async def test_old_resets_are_forgotten() -> None:
    bank = Bank({0}, stuck=True)
    loop = watch(bank, [])
    for k in range(3 * MOST_RESETS):
        await loop.step(10.0 * k)
    assert loop.resets == 3 * MOST_RESETS
