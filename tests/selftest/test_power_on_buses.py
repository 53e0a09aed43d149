"""Buses that are dead, noisy or intermittent are named; a device alone that is to blame is named instead of its bus."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from drivers.errors import BusFault
from qmodd.selftest.bench import Bench
from qmodd.selftest.power_on_buses import ALLOWED, ENOUGH, TRANSACTIONS, Burst, burst, by_bus
from qmodd.selftest.power_on_common import culprit
from qmodd.soak import Run
from tests.selftest.bench import fault, on_bench
from tests.selftest.power_on import examined

NOISE = {"probability": 0.03}

CASES: list[tuple[str, tuple[tuple[str, str, dict[str, Any]], ...], str]] = [
    ("alice", (("i2c1", "nack", NOISE),), "bus i2c:1"),
    ("bob", (("i2c1", "crc", NOISE),), "bus i2c:1"),
    ("alice", (("i2c1", "stuck", {}),), "bus i2c:1"),
    ("bob", (("i2c2", "nack", NOISE),), "bus i2c:2"),
    ("alice", (("spi0.0", "crc", NOISE), ("spi0.1", "crc", NOISE)), "bus spi:0"),
    ("bob", (("spi0.0", "hang", {}), ("spi0.1", "hang", {})), "bus spi:0"),
    ("alice", (("spi0.0", "crc", NOISE),), "heater_dac"),
    ("bob", (("ltc2668", "crc", NOISE),), "bias_dac"),
    ("alice", (("tmp117", "nack", NOISE),), "submount"),
    ("bob", (("ina228", "crc", NOISE),), "heater_rail"),
    ("alice", (("pmbus", "crc", NOISE),), "supply"),
    ("bob", (("eeprom24c64", "nack", NOISE),), "fru_eeprom"),
    ("alice", (("spi1.0", "crc", NOISE),), "bus spi:1"),
    ("bob", (("serial.tec", "crc", NOISE),), "bus of tec"),
    ("alice", (("serial.laser", "nack", NOISE),), "bus of laser"),
    ("alice", (("visa.source", "garbage", NOISE),), "bus of symbol_source"),
    ("bob", (("visa.tagger", "crc", NOISE),), "bus of time_tagger"),
    ("bob", (("tcp.snspd", "nack", NOISE),), "bus of detectors"),
    ("bob", (("visa.counter", "nack", NOISE),), "bus of counter"),
    ("bob", (("visa.cryostat", "crc", NOISE),), "bus of cryostat"),
    ("alice", (("tmp117", "unplug", {}),), "submount"),
    ("bob", (("ina228", "unplug", {}),), "heater_rail"),
    ("alice", (("pmbus", "unplug", {}),), "supply"),
    ("bob", (("eeprom24c64", "unplug", {}),), "fru_eeprom"),
    ("alice", (("ltc2672", "unplug", {}),), "heater_dac"),
    ("bob", (("ltc2668", "unplug", {}),), "bias_dac"),
    ("alice", (("ads131m08", "unplug", {}),), "monitor_adc"),
    ("alice", (("laser", "unplug", {}),), "laser"),
    ("alice", (("source", "unplug", {}),), "symbol_source"),
    ("bob", (("tagger", "unplug", {}),), "time_tagger"),
    ("bob", (("snspd", "unplug", {}),), "detectors"),
    ("bob", (("counter", "unplug", {}),), "counter"),
    ("bob", (("cryostat", "unplug", {}),), "cryostat"),
]


@pytest.mark.parametrize(("side", "faults", "part"), CASES)
def test_the_bus_or_the_device_is_named(side: str, faults: tuple[Any, ...], part: str) -> None:
    report = examined(side, *faults)
    assert not report.passed
    assert report.suspects[0] == part


def one_burst(role: str, probability: float, seed: int) -> Burst:
    async def work(bench: Bench, _run: Run) -> Burst:
        return await asyncio.create_task(burst(bench, role))

    lines = [fault("bob.tmp117", "nack", at=0.05, probability=probability)] if probability else []
    return on_bench("bob", work, seed=seed, faults=lines)


def test_two_percent_are_found_practically_always() -> None:
    """By the binomial formula, and by trying."""
    p = 0.02
    missed = (1 - p) ** TRANSACTIONS * (1 + TRANSACTIONS * p / (1 - p))
    assert ALLOWED == 1
    assert missed < 0.01
    assert all(one_burst("submount", p, seed).bad for seed in range(5))


def test_a_burst_counts_every_attempt_and_stops_early() -> None:
    assert one_burst("submount", 0.0, 1) == Burst("submount", TRANSACTIONS, 0, False, "")
    dead = one_burst("submount", 1.0, 1)
    assert (dead.right, dead.silent) == (0, True)
    assert ENOUGH <= dead.wrong <= ENOUGH + 3
    assert "no acknowledge" in dead.why


def test_what_others_do_on_the_bus_is_not_counted() -> None:
    async def work(bench: Bench, _run: Run) -> Burst:
        async def noise() -> None:
            while True:
                with pytest.raises(BusFault):
                    await bench.module.submount.read_celsius()
                await asyncio.sleep(0.001)

        other = asyncio.create_task(noise())
        try:
            return await asyncio.create_task(burst(bench, "rail"))
        finally:
            other.cancel()

    found = on_bench("bob", work, faults=[fault("bob.tmp117", "unplug", at=0.05)])
    assert (found.right, found.wrong) == (TRANSACTIONS, 0)


def test_every_device_of_both_sides_is_on_a_bus_that_is_tested() -> None:
    async def work(bench: Bench, _run: Run) -> tuple[set[str], set[str]]:
        return set(bench.module.devices), {role for roles in by_bus(bench).values() for role in roles}

    for side in ("alice", "bob"):
        devices, tested = on_bench(side, work)
        assert tested == devices


def test_errors_name_their_device() -> None:
    async def work(bench: Bench, _run: Run) -> list[str]:
        said = [
            "i2c:1: no acknowledge (0x48)",
            "i2c:1: the bus timed out",
            "monitor_adc at spi:1.0: no conversion",
            "spi:0.1: the bus timed out",
            "nobody knows",
        ]
        return [culprit(bench, text, "tec") for text in said]

    assert on_bench("alice", work) == ["submount", "tec", "adc", "biases", "tec"]
