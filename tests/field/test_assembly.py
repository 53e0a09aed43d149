"""Which module is in: EEPROM first, file as its stand-in and cross-check; what contradicts itself is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from drivers.chips.factory_slots import FactorySlot
from drivers.chips.fru import Fru
from drivers.roles import Identity
from qmodd.field.assembly import NotIdentified, Replaced, identify, replaced
from qmodd.field.eeprom import Contents, parse, record_text
from sim.fru_image import fru_image
from sim.individuals import draw_alice, factory_record

MODULE = draw_alice(4)
RECORD: dict[str, Any] = factory_record(MODULE, 4)
CONTENTS = parse(fru_image(MODULE, 4))
OTHER: dict[str, Any] = factory_record(draw_alice(5), 5)


def test_a_module_brings_its_own_record() -> None:
    found = identify(CONTENTS, RECORD)
    assert (found.serial, found.source, found.notes) == (MODULE.serial, "eeprom", ())
    assert found.factory.serial == MODULE.serial
    assert found.factory.voa is not None


def test_the_file_of_another_module_is_said_and_not_used() -> None:
    found = identify(CONTENTS, OTHER)
    assert found.factory.serial == MODULE.serial
    ((name, why),) = found.notes
    assert name == "factory.file_of_another"
    assert OTHER["serial"] in why
    assert MODULE.serial in why


def test_a_file_of_the_same_module_that_differs_is_said() -> None:
    found = identify(CONTENTS, {**RECORD, "pad": {"db": 1.0, "sigma_db": 0.1}})
    assert [name for name, _ in found.notes] == ["factory.differs"]
    assert found.source == "eeprom"


def test_without_a_record_of_its_own_the_file_stands_in_if_it_is_this_modules() -> None:
    fru = CONTENTS.fru
    assert fru is not None
    found = identify(Contents(fru, None), RECORD)
    assert (found.serial, found.source) == (MODULE.serial, "file")
    assert found.notes[0][0] == "factory.from_file"
    with pytest.raises(NotIdentified, match=f"module {MODULE.serial} brings no factory record.*qmodd fru write"):
        identify(Contents(fru, None), OTHER)


def test_no_eeprom_at_all_is_the_files_module() -> None:
    found = identify(None, RECORD)
    assert (found.serial, found.source, found.notes) == (MODULE.serial, "file", ())


def test_a_blank_eeprom_is_the_files_module_and_said() -> None:
    found = identify(Contents(None, None), RECORD)
    assert found.serial == MODULE.serial
    assert found.notes[0][0] == "factory.from_file"


def test_an_eeprom_that_contradicts_itself_is_refused() -> None:
    fru = CONTENTS.fru
    assert fru is not None
    with pytest.raises(NotIdentified, match="contradicts itself"):
        identify(replace(CONTENTS, fru=replace(fru, product_serial="QA0000001")), RECORD)


@pytest.mark.parametrize("serial", ["", "../up", "a" * 33, "QA 1"])
def test_a_serial_that_cannot_name_a_directory_is_refused(serial: str) -> None:
    with pytest.raises(NotIdentified, match="1 to 32 letters"):
        identify(Contents(Fru(product_serial=serial), None), {"serial": serial})


def test_a_record_that_does_not_fit_names_the_field() -> None:
    slot = FactorySlot("A", 1, 1, record_text({**RECORD, "voa": {"volts": [0.0], "db": [1.0]}}))
    with pytest.raises(NotIdentified, match="voa"):
        identify(Contents(CONTENTS.fru, slot), RECORD)
    with pytest.raises(NotIdentified, match="no JSON object"):
        identify(Contents(CONTENTS.fru, FactorySlot("A", 1, 1, b"[1]")), RECORD)


def identity(serial: str) -> Identity:
    return Identity("itla", "serial:x", "model", serial)


def test_a_device_with_another_serial_is_a_replaced_one() -> None:
    now = {"laser": identity("L2"), "tec": identity("T1"), "adc": identity(""), "new": identity("N")}
    assert replaced({"laser": "L1", "tec": "T1", "adc": "A1", "gone": "G"}, now) == [Replaced("laser", "L1", "L2")]
