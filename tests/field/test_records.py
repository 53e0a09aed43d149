"""Records by module: the stores stay the same objects, what is in them belongs to the module that is in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from calibration.record import Record
from calibration.store import Change, RecordStore
from qmodd.field.records import ModuleRecords

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def record(name: str, value: float, raw: str = "") -> Record:
    return Record(name=name, value={"x_v": value}, created=NOW, valid_until=NOW, raw_sha256=raw)


@pytest.mark.parametrize("durable", [True, False])
def test_each_module_has_its_own(tmp_path: Path, durable: bool) -> None:
    library = ModuleRecords(tmp_path, durable=durable)
    told: list[Change] = []
    library.records.subscribe(told.append)
    records, raw = library.records, library.raw
    assert not library.select("QA1"), "the first one replaces nobody"
    digest = raw.put({"v": [1.0, 2.0]})
    records.append(record("laser", 1.0, digest))
    assert library.select("QA2")
    assert library.records is records
    assert records.names() == ()
    assert raw.get(digest) is None
    records.append(record("laser", 2.0))
    records.append(record("decoy", 2.0))
    assert library.select("QA1")
    assert records.names() == ("laser",)
    found = records.active("laser")
    assert found is not None
    assert found.value == {"x_v": 1.0}
    assert raw.get(digest) is not None
    assert [c.name for c in told] == ["laser", "laser", "decoy"], "exchanging tells nobody"
    assert library.known() == ("QA1", "QA2")
    assert not library.select("QA1")


def test_a_restart_begins_with_the_module_that_was_in_last(tmp_path: Path) -> None:
    library = ModuleRecords(tmp_path, durable=True)
    library.select("QA1")
    library.records.append(record("laser", 1.0))
    library.select("QA2")
    library.records.append(record("decoy", 2.0))
    again = ModuleRecords(tmp_path, durable=True)
    assert again.serial == "QA2"
    assert again.records.names() == ("decoy",)
    again.select("QA1")
    assert again.records.names() == ("laser",)


def test_records_of_an_older_daemon_become_those_of_the_first_module(tmp_path: Path) -> None:
    RecordStore(tmp_path / "calibration.jsonl").append(record("laser", 1.0))
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "old.json").write_text("{}")
    library = ModuleRecords(tmp_path, durable=True)
    assert library.records.names() == ("laser",), "shown before any module is seen"
    library.select("QA1")
    assert library.records.names() == ("laser",)
    assert not (tmp_path / "calibration.jsonl").exists()
    assert (tmp_path / "modules" / "QA1" / "raw" / "old.json").exists()
    library.select("QA2")
    assert library.records.names() == ()


@pytest.mark.parametrize("durable", [True, False])
def test_device_serials_are_kept_by_module(tmp_path: Path, durable: bool) -> None:
    library = ModuleRecords(tmp_path, durable=durable)
    library.select("QA1")
    assert library.devices() == {}
    library.note_devices({"laser": "L1"})
    library.select("QA2")
    assert library.devices() == {}
    library.select("QA1")
    assert library.devices() == {"laser": "L1"}


def test_a_damaged_note_of_the_last_module_is_no_module(tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "current").write_text("../../etc")
    assert ModuleRecords(tmp_path, durable=True).serial == ""
