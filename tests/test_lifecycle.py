from pathlib import Path

import pytest

from qmodd.clock import SystemClock
from qmodd.lifecycle import Activity, Administrative, Field, LifeCycle, Operational


def make(path: Path) -> tuple[LifeCycle, list[tuple[str, Field]]]:
    heard: list[tuple[str, Field]] = []
    life = LifeCycle(path / "life.json", SystemClock())
    life.listeners.append(lambda name, value: heard.append((name, value)))
    return life, heard


def test_starts_dark_and_says_why(tmp_path: Path) -> None:
    life, _ = make(tmp_path)
    assert (life.administrative, life.operational, life.activity) == (
        Administrative.UNLOCKED,
        Operational.DISABLED,
        Activity.BOOT,
    )
    assert life.why("operational") == "starting"


def test_a_lock_outlives_the_process(tmp_path: Path) -> None:
    life, _ = make(tmp_path)
    life.set_administrative(Administrative.LOCKED, "locked by noc-7 for fibre work")
    again, _ = make(tmp_path)
    assert again.administrative is Administrative.LOCKED
    assert again.why("administrative") == "locked by noc-7 for fibre work"


@pytest.mark.parametrize("content", ["", "{", '{"administrative": "open", "why": ""}', "[]"])
def test_an_unreadable_state_is_locked(tmp_path: Path, content: str) -> None:
    (tmp_path / "life.json").write_text(content)
    life, _ = make(tmp_path)
    assert life.administrative is Administrative.LOCKED
    assert "unreadable" in life.why("administrative")


def test_each_change_is_told_once(tmp_path: Path) -> None:
    life, heard = make(tmp_path)
    life.set_activity(Activity.KEYING, "block 1")
    life.set_activity(Activity.KEYING, "block 1")
    life.set_activity(Activity.KEYING, "block 2")
    assert [(n, f.value, f.why) for n, f in heard] == [
        ("activity", "keying", "block 1"),
        ("activity", "keying", "block 2"),
    ]
    assert heard[0][1].since == heard[1][1].since


def test_inhibited_outputs_carry_their_reason(tmp_path: Path) -> None:
    life, heard = make(tmp_path)
    life.inhibit("laser", "interlock open")
    life.inhibit("laser", "interlock open")
    assert life.snapshot()["inhibited"] == [{"output": "laser", "why": "interlock open"}]
    life.allow("laser")
    life.allow("laser")
    assert life.snapshot()["inhibited"] == []
    assert [n for n, _ in heard] == ["inhibited", "allowed"]
