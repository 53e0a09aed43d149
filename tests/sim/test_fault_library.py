"""Every part, bus, path and supply of the shipped modules is in the library; each of its lines means something."""

from __future__ import annotations

import tomllib
from collections import Counter
from typing import Any

import pytest

from qmodd.demo.compose import shipped
from sim.busfaults import KINDS
from sim.fault_library import CASES, CATEGORIES, FaultCase
from sim.faults import Fault, understood
from sim.partfaults import PART_KINDS, fits
from sim.physics.defects import PATHS
from sim.scenario import Scenario

SIDES = ("alice", "bob")
BUSES = ("i2c1", "i2c2", "spi0", "spi1", "serial", "visa", "tcp")
ELEMENTS = {
    "alice": {"modulator carver", "modulator state", "modulator decoy", "attenuator"},
    "bob": {"self-test diode", "diode shutter", "shutter", "detector DZ", "detector DX0", "detector DX1"},
}


def devices(side: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads(shipped(f"{side}.toml"))["device"]
    return found


def bus(device: dict[str, Any]) -> str:
    """As a self-test names it."""
    kind, _, rest = device["address"].partition(":")
    if kind not in ("i2c", "spi"):
        return f"bus of {device['name']}"
    return f"bus {kind}:{rest.partition(':' if kind == 'i2c' else '.')[0]}"


def named(side: str) -> set[str]:
    return {part for case in CASES if case.side == side for part in case.parts}


def test_there_are_enough_and_no_two_alike() -> None:
    assert len(CASES) >= 60
    assert max(Counter(c.name for c in CASES).values()) == 1
    assert max(Counter(c.faults for c in CASES).values()) == 1
    assert {c.category for c in CASES} == set(CATEGORIES)


@pytest.mark.parametrize("side", SIDES)
def test_every_device_of_the_configuration_breaks(side: str) -> None:
    for device in devices(side):
        assert device["name"] in named(side)


def test_every_bus_breaks() -> None:
    broken = {part for case in CASES for part in case.parts}
    for side in SIDES:
        for device in devices(side):
            assert bus(device) in broken, bus(device)


@pytest.mark.parametrize("side", SIDES)
def test_every_optical_path_breaks(side: str) -> None:
    lossy = {f.target for c in CASES for f in c.faults if f.kind == "loss"}
    assert {f"{side}.path.{name}" for name in PATHS[side]} <= lossy


@pytest.mark.parametrize("side", SIDES)
def test_every_element_of_the_chip_breaks(side: str) -> None:
    options = {d["role"]: d.get("options", {}).get("channels", {}) for d in devices(side)}
    diodes = {f"photodiode {name}" for name in options["adc"] if name not in ("heater_monitor", "short")}
    heaters = {f"heater {name}" for name in options["heaters"] if name not in ("spare", "ballast")}
    assert diodes | heaters | ELEMENTS[side] <= named(side)


def test_what_both_modules_have_breaks_in_one_of_them() -> None:
    both = {"thermistor", "peltier", "heat sink", "supply", "fan", "interlock", "watchdog"}
    assert both <= named("alice") | named("bob")


def test_every_supply_breaks_at_both_ends() -> None:
    targets = {(f.kind, f.target.partition(".")[2]) for c in CASES for f in c.faults}
    assert {("sagging", "pmbus"), ("rising", "pmbus"), ("input", "pmbus"), ("floating", "pca9535.2")} <= targets


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_every_line_means_something(case: FaultCase) -> None:
    assert case.parts
    assert case.side in SIDES
    scenario = Scenario(fault=case.lines())
    for line, fault in zip(scenario.fault, case.faults, strict=True):
        assert fault.target.startswith(f"{case.side}.")
        assert known(fault), f"nothing acts on {fault.kind} at {fault.target}"
        assert line.fault() == fault


def known(fault: Fault) -> bool:
    rest = fault.target.partition(".")[2]
    part, _, place = rest.partition(".")
    if understood(fault.kind, fault.target):
        return True
    if part in PART_KINDS and (fault.kind == "unplug" or fits(PART_KINDS[part], fault.kind, place)):
        return True
    wired = part in PART_KINDS or rest.startswith(BUSES)
    return (fault.kind in KINDS and wired) or (fault.kind == "open" and rest in ("interlock", "cover"))
