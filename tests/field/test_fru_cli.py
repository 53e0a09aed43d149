"""`qmodd fru` on an emulated EEPROM: shows, writes, refuses with field and limit, verifies."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from drivers.chips.eeprom24c64 import Eeprom24c64
from drivers.errors import Refused
from qmodd.cli import parser
from qmodd.config import Config
from qmodd.fru_cli import NOT_IN_ORDER, WrongValue, command, perform, show
from sim.individuals import draw_bob, factory_record
from sim.rig import Rig
from tests.field.test_eeprom import with_memory

SEED = 3
RECORD = factory_record(draw_bob(SEED), SEED)


def fru(tmp_path: Path, *arguments: str, file: dict[str, Any] = RECORD, before: bytes = b"") -> tuple[int, Any, bytes]:
    """Exit status, what is told, and the EEPROM's bytes after it. `before`: blank where it is 0xff only."""
    (tmp_path / "factory.json").write_text(json.dumps(file))
    module = SimpleNamespace(serial="QM-B-0001", factory=tmp_path / "factory.json")
    config = cast(Config, SimpleNamespace(module=module))
    args = parser(["fru"]).parse_args(["fru", arguments[0], "--config", "x.toml", *arguments[1:]])

    async def work(memory: Eeprom24c64, rig: Rig) -> tuple[int, Any, bytes]:
        content = rig.part("eeprom24c64").content
        if before:
            content[:] = before
        status, told = await perform(memory, config, args)
        return status, told, bytes(content)

    return with_memory(work, SEED)


def test_a_good_module_is_shown_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told, _ = fru(tmp_path, "verify")
    assert (status, told["faults"]) == (0, [])
    assert told["fru"]["product"]["serial"] == RECORD["serial"] == told["factory_record"]
    show(told, as_json=False)
    out = capsys.readouterr().out
    assert f"of {RECORD['serial']}, slot A, sequence 1" in out
    show(told, as_json=True)
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_a_blank_part_is_made_a_module(tmp_path: Path) -> None:
    """As in the factory: serial, hardware revision and factory record in one go."""
    path = tmp_path / "record.json"
    path.write_text(json.dumps(RECORD))
    blank = b"\xff" * 8192
    assert fru(tmp_path, "verify", before=blank)[0] == NOT_IN_ORDER
    status, told, after = fru(
        tmp_path,
        "write",
        "--factory",
        str(path),
        "--hardware-revision",
        "2",
        "--made",
        "2026-05-04T10:11Z",
        before=blank,
    )
    assert status == 0
    assert told["fru"]["product"]["serial"] == RECORD["serial"]
    assert told["fru"]["record"]["hardware_revision"] == 2
    assert told["fru"]["board"]["made"].startswith("2026-05-04T10:11")
    assert fru(tmp_path, "verify", before=after)[1]["faults"] == []


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--asset-tag", "x" * 64, "at most 63 printable ASCII"),
        ("--product-name", "Sender µ", "at most 63 printable ASCII"),
        ("--product-serial", "QB 1", "1 to 32 letters"),
        ("--hardware-revision", "256", "0 to 255"),
        ("--made", "1995-12-31T00:00Z", "1996-01-01 to 2027-11-24"),
        ("--made", "yesterday", "ISO 8601"),
    ],
)
def test_bad_values_name_field_and_limit_and_change_nothing(tmp_path: Path, option: str, value: str, why: str) -> None:
    good = fru(tmp_path, "show")[2]
    with pytest.raises(WrongValue, match=why) as e:
        fru(tmp_path, "write", option, value)
    assert str(e.value).startswith(option)
    assert fru(tmp_path, "show")[2] == good


def test_the_record_of_another_module_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps(factory_record(draw_bob(9), 9)))
    with pytest.raises(WrongValue, match=f"the module's serial is '{RECORD['serial']}'"):
        fru(tmp_path, "write", "--factory", str(path))
    path.write_text("[]")
    with pytest.raises(WrongValue, match="no JSON object"):
        fru(tmp_path, "write", "--factory", str(path))
    path.write_text(json.dumps({**RECORD, "photodiodes": {"pb0": {"tap_ratio": 2.0}}}))
    with pytest.raises(WrongValue, match=r"photodiodes\.pb0\.tap_ratio"):
        fru(tmp_path, "write", "--factory", str(path))


def test_a_protected_part_is_said(tmp_path: Path) -> None:
    args = parser(["fru"]).parse_args(["fru", "write", "--config", "x.toml", "--asset-tag", "rack 7"])

    async def work(memory: Eeprom24c64, rig: Rig) -> None:
        rig.part("eeprom24c64").protected = True
        with pytest.raises(Refused, match="write-protected"):
            await perform(memory, cast(Config, SimpleNamespace(module=SimpleNamespace(serial="x"))), args)

    with_memory(work, SEED)


def test_verify_compares_with_the_file(tmp_path: Path) -> None:
    status, told, _ = fru(tmp_path, "verify", file={**RECORD, "heaters": {}})
    assert status == NOT_IN_ORDER
    assert "module.factory differs" in told["faults"][0]
    assert fru(tmp_path, "verify", file=factory_record(draw_bob(9), 9))[0] == 0, "a spare brings its own"


def test_a_wrong_configuration_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = parser(["fru"]).parse_args(["fru", "show", "--config", str(tmp_path / "none.toml")])
    assert command(args) == 2
    assert "cannot be read" in capsys.readouterr().err
