"""A module pulled and put in again while the world goes on; behind the same endpoints another individual."""

from __future__ import annotations

import pytest

from sim.clock import ManualClock
from sim.faults import Fault
from sim.inproc import InprocLibraries
from sim.rig import Rig, build_rigs
from sim.scenario import Scenario
from sim.swap import Bay
from sim.world import World


def built(seed: int = 1) -> tuple[ManualClock, World, dict[str, Rig]]:
    clock = ManualClock()
    world = World(Scenario(seed=seed), clock)
    return clock, world, dict(build_rigs(world, clock))


def bay_of(rig: Rig) -> Bay:
    assert rig.bay is not None
    return rig.bay


def go(clock: ManualClock, world: World, rigs: dict[str, Rig], to_s: float) -> None:
    while clock.t < to_s:
        clock.t = min(to_s, clock.t + 0.1)
        world.advance()
        for rig in rigs.values():
            rig.tick()


def memory(libraries: InprocLibraries) -> bytes:
    """The EEPROM's first 1024 bytes, over the bus that was opened before the swap."""
    out = b""
    for at in range(0, 1024, 32):
        bus = libraries.i2c(1)
        bus.write_i2c_block_data(0x50, at >> 8, [at & 0xFF])
        out += bytes(bus.read_byte(0x50) for _ in range(32))
    return out


def test_pulled_nothing_answers_and_nothing_shines() -> None:
    clock, world, rigs = built()
    rig = rigs["alice"]
    bus = InprocLibraries(rig).i2c(2)
    bus.write_byte_data(0x20, 2, 0x07)
    bus.write_byte_data(0x20, 6, 0x00)
    world.alice.set_laser(True, 193.4145e12, 13.0)
    go(clock, world, rigs, 0.3)
    assert world.alice.laser()[0]
    assert world.alice.heater_rail()[0] > 0.0
    bay_of(rig).pull()
    assert not world.alice.laser()[0]
    assert world.alice.heater_rail()[0] == 0.0
    with pytest.raises(OSError, match="acknowledge"):
        bus.read_byte_data(0x20, 0)
    assert all(byte == 0xFF for byte in InprocLibraries(rig).spi(0, 0).xfer2([0] * 4))
    assert not any(rig.present(name) for name in rig)
    bay_of(rig).insert()
    assert bus.read_byte_data(0x20, 6) == 0xFF, "powered on anew: all lines are inputs"
    assert all(rig.present(name) for name in rig)


@pytest.mark.parametrize("side", ["alice", "bob"])
def test_another_individual_behind_the_same_sockets(side: str) -> None:
    clock, world, rigs = built()
    go(clock, world, rigs, 1.0)
    rig, libraries = rigs[side], InprocLibraries(rigs[side])
    endpoints = {id(e) for e in (*rig.i2c.values(), *rig.spi.values(), *rig.serial.values(), *rig.scpi.values())}
    port = world.alice if side == "alice" else world.bob
    first, before = port.serial, memory(libraries)
    bay_of(rig).insert(7)
    go(clock, world, rigs, 2.0)
    other = world.alice if side == "alice" else world.bob
    assert other is not port
    assert other.serial != first
    assert rig.port is other
    assert {
        id(e) for e in (*rig.i2c.values(), *rig.spi.values(), *rig.serial.values(), *rig.scpi.values())
    } == endpoints
    assert other.serial.encode() in memory(libraries)
    assert first.encode() not in memory(libraries)
    bay_of(rig).insert(1)
    assert memory(libraries) == before
    assert (world.alice if side == "alice" else world.bob) is port
    go(clock, world, rigs, 3.0)


def test_what_was_written_into_a_module_comes_back_with_it() -> None:
    _clock, _world, rigs = built()
    rig = rigs["bob"]
    rig.part("eeprom24c64").content[100] = 0x5A
    bay_of(rig).insert(9)
    assert rig.part("eeprom24c64").content[100] != 0x5A
    bay_of(rig).insert(1)
    assert rig.part("eeprom24c64").content[100] == 0x5A


def test_scripted_unplug_and_swap() -> None:
    clock, world, rigs = built()
    world.faults.add(Fault(1.0, "unplug", "alice.module", 2.0))
    world.faults.add(Fault(5.0, "swap", "alice.module", 1.0, 4.0))
    world.faults.add(Fault(8.0, "swap", "bob.module", value=5.0))
    alice, bob = bay_of(rigs["alice"]), bay_of(rigs["bob"])
    go(clock, world, rigs, 0.9)
    seen = [alice.inserted]
    for to_s in (1.5, 3.5):
        go(clock, world, rigs, to_s)
        seen.append(alice.inserted)
    assert seen == [True, False, True]
    assert alice.seed == 1
    go(clock, world, rigs, 5.5)
    assert (alice.inserted, bob.inserted) == (False, True)
    go(clock, world, rigs, 9.0)
    assert (alice.inserted, alice.seed, bob.inserted, bob.seed) == (True, 4, True, 5)
    go(clock, world, rigs, 12.0)
    assert (alice.seed, bob.seed) == (4, 5), "a swap is done once"


def test_a_swap_is_the_same_for_the_same_seed() -> None:
    seen = []
    for _ in range(2):
        clock, world, rigs = built()
        go(clock, world, rigs, 0.5)
        bay_of(rigs["alice"]).insert(3)
        go(clock, world, rigs, 1.5)
        seen.append((world.alice.serial, world.alice.phases().tolist(), world.alice.plant.state.tolist()))
    assert seen[0] == seen[1]
