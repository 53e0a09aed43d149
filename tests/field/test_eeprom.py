"""EEPROM as a whole through the real driver on an emulated part: read, write, torn writes, write protection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from drivers.bus.libraries import Libraries
from drivers.bus.pool import BusPool
from drivers.chips.eeprom24c64 import Eeprom24c64, Eeprom24c64Options
from drivers.chips.fru import Fru, FruError
from drivers.errors import Refused
from qmodd.field.eeprom import Contents, parse, read_eeprom, record_text, write_factory, write_fru
from sim.clock import CallbackClock
from sim.fru_image import fru_image
from sim.inproc import InprocLibraries
from sim.loop import SimulatedLoop
from sim.rig import Rig, build_rigs
from sim.scenario import Scenario
from sim.world import World

T = TypeVar("T")


def with_memory(work: Callable[[Eeprom24c64, Rig], Awaitable[T]], seed: int = 3) -> T:
    """`work` on bob's EEPROM in simulated time."""
    loop = SimulatedLoop()

    async def main() -> T:
        clock = CallbackClock(loop.time)
        world = World(Scenario(seed=seed), clock)
        rig = build_rigs(world, clock)["bob"]
        found = InprocLibraries(rig)
        libraries = Libraries(found.i2c, found.spi, found.serial, found.visa, found.tcp, threaded=False)
        memory = Eeprom24c64("fru_eeprom", "i2c:1:0x50", BusPool(libraries, loop.time), Eeprom24c64Options())
        await memory.open()
        return await work(memory, rig)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main())


def factory_of(contents: Contents) -> dict[str, Any]:
    found = contents.factory_mapping()
    assert found is not None
    return found


def test_a_module_from_the_factory_is_in_order() -> None:
    async def work(memory: Eeprom24c64, rig: Rig) -> Contents:
        return await read_eeprom(memory)

    contents = with_memory(work)
    assert not contents.faults
    assert contents.serial == factory_of(contents)["serial"]
    assert contents.fru is not None
    assert contents.fru.product_name == "QKD receiver"


def test_fields_are_changed_and_the_rest_stays() -> None:
    async def work(memory: Eeprom24c64, rig: Rig) -> tuple[Contents, Contents]:
        before = await read_eeprom(memory)
        assert before.fru is not None
        await write_fru(memory, replace(before.fru, asset_tag="rack 7, slot 3"))
        return before, await read_eeprom(memory)

    before, after = with_memory(work)
    assert before.fru is not None
    assert after.fru is not None
    assert before.fru.record is not None
    record = replace(before.fru.record, sequence=before.fru.record.sequence + 1)
    assert after.fru == replace(before.fru, asset_tag="rack 7, slot 3", record=record)
    assert after.factory == before.factory


def test_a_new_factory_record_goes_into_the_other_slot_with_its_digest() -> None:
    async def work(memory: Eeprom24c64, rig: Rig) -> tuple[Contents, Contents]:
        before = await read_eeprom(memory)
        await write_factory(memory, {**factory_of(before), "note": "recalibrated"})
        return before, await read_eeprom(memory)

    before, after = with_memory(work)
    assert before.factory is not None
    assert after.factory is not None
    assert (before.factory.slot, after.factory.slot, after.factory.sequence) == ("A", "B", 2)
    assert factory_of(after)["note"] == "recalibrated"
    assert not after.faults


def test_a_write_protected_part_is_noticed_and_unchanged() -> None:
    async def work(memory: Eeprom24c64, rig: Rig) -> Contents:
        rig.part("eeprom24c64").protected = True
        with pytest.raises(Refused, match="write-protected"):
            await write_fru(memory, Fru(product_serial="QB1"))
        with pytest.raises(Refused, match="write-protected"):
            await write_factory(memory, {"serial": "QB1"})
        return await read_eeprom(memory)

    assert with_memory(work).faults == ()


def test_a_fru_write_cut_short_is_seen_and_the_factory_record_still_names_the_module() -> None:
    class PowerCut(Exception):
        pass

    class Cut:
        """Lets `pages` writes through."""

        def __init__(self, memory: Eeprom24c64, pages: int) -> None:
            self.name, self._memory, self._left = memory.name, memory, pages

        async def read(self, start: int, length: int) -> bytes:
            return await self._memory.read(start, length)

        async def write(self, start: int, data: bytes) -> None:
            for at in range(0, len(data), 32):
                if not self._left:
                    raise PowerCut
                self._left -= 1
                await self._memory.write(start + at, data[at : at + 32])

    async def work(memory: Eeprom24c64, rig: Rig) -> None:
        good = bytes(rig.part("eeprom24c64").content)
        for pages in range(0, 33, 4):
            rig.part("eeprom24c64").content[:] = good
            with pytest.raises(PowerCut):
                await write_fru(Cut(memory, pages), Fru(product_serial="QB0000009", product_name="other"))
            contents = await read_eeprom(memory)
            if pages == 0:
                assert not contents.faults
            else:
                assert contents.fru is None
                assert contents.faults[0].startswith("FRU: common header")
            assert factory_of(contents)["serial"] == rig.port.serial

    with_memory(work)


def test_too_long_a_text_is_refused_before_anything_is_written() -> None:
    async def work(memory: Eeprom24c64, rig: Rig) -> bool:
        before = bytes(rig.part("eeprom24c64").content)
        with pytest.raises(FruError, match="63 is the limit"):
            await write_fru(memory, Fru(asset_tag="x" * 64))
        return bytes(rig.part("eeprom24c64").content) == before

    assert with_memory(work)


def test_a_digest_of_another_record_is_a_fault() -> None:
    from sim.individuals import draw_bob

    image, other = fru_image(draw_bob(1), 1), fru_image(draw_bob(2), 2)
    assert parse(image).faults == ()
    mixed = image[:1024] + other[1024:]
    assert parse(mixed).faults == ("FRU: its calibration digest is not that of the factory record in the EEPROM",)


def test_a_blank_part_is_blank() -> None:
    assert parse(b"\xff" * 8192) == Contents(None, None, ())


def test_the_stored_text_is_what_the_digest_is_over() -> None:
    assert record_text({"b": 1, "a": [1, 2]}) == b'{"a":[1,2],"b":1}'
    assert json.loads(record_text({"x": 1e-10})) == {"x": 1e-10}
