"""The latch file: whatever byte, call or instant the process dies at, what was latched stays latched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.safety_latches import kill
from qmodd.safety.latches import FILE, UNREADABLE, Latch, LatchStore, causes

HOT = Latch("over-temperature", "heat sink at 71.0 C; 68 C is the limit", "2026-11-30T10:00:00.000+00:00", ("sink_c",))
COVER = Latch("cover-open", "the cover is open", "2026-11-30T10:01:00.000+00:00", (), ({"sink_c": 30.5, "at": "x"},))


class Killed(BaseException):
    """The process is gone."""


def test_what_is_set_is_there_after_a_restart_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state" / FILE
    store = LatchStore(path)
    assert store.all() == ()
    assert store.set(HOT)
    assert store.set(COVER)
    assert not store.set(Latch("cover-open", "another", ""))
    again = LatchStore(path)
    assert again.all() == (HOT, COVER)
    assert again.clear("over-temperature") == HOT
    assert LatchStore(path).all() == (COVER,)
    with pytest.raises(LookupError, match="no latch 'over-temperature' is set"):
        again.clear("over-temperature")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"latches": 3}', '{"latches": [{"name": "x"}]}', "\x00\x00"])
def test_a_file_that_cannot_be_read_is_a_latch_that_can_be_cleared(tmp_path: Path, text: str) -> None:
    path = tmp_path / FILE
    path.write_text(text)
    store = LatchStore(path)
    (held,) = store.all()
    assert held.name == UNREADABLE
    assert "what was latched is not known" in causes(store.all())
    store.clear(UNREADABLE)
    assert LatchStore(path).all() == ()


def dying_after(calls: int, bytes_left: int, patch: pytest.MonkeyPatch) -> None:
    """os.write, fsync, replace and open raise from the given call on; a write that dies leaves so many bytes."""
    count = 0
    real: dict[str, Callable[..., Any]] = {n: getattr(os, n) for n in ("write", "fsync", "replace", "open")}

    def dies(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count > calls:
                if name == "write":
                    real["write"](arguments[0], bytes(arguments[1])[:bytes_left])
                raise Killed(name)
            return real[name](*arguments)

        return call

    for name in real:
        patch.setattr(os, name, dies(name))


def run_and_die(path: Path, calls: int, bytes_left: int, work: Callable[[LatchStore], object]) -> bool:
    """True when it got through."""
    store = LatchStore(path)
    with pytest.MonkeyPatch.context() as patch:
        dying_after(calls, bytes_left, patch)
        try:
            work(store)
        except Killed:
            return False
    return True


def size_of(*latches: Latch, path: Path) -> int:
    store = LatchStore(path)
    for latch in latches:
        store.set(latch)
    return path.stat().st_size


def test_killed_at_every_byte_of_a_write_nothing_that_was_set_is_lost(tmp_path: Path) -> None:
    total = size_of(HOT, COVER, path=tmp_path / "whole" / FILE)
    for n in range(total + 1):
        path = tmp_path / f"{n}" / FILE
        LatchStore(path).set(HOT)
        assert not run_and_die(path, 1, n, lambda store: store.set(COVER))
        assert LatchStore(path).all() == (HOT,)
        assert LatchStore(path).set(COVER)
        assert LatchStore(path).all() == (HOT, COVER)


@pytest.mark.parametrize("calls", range(8))
def test_killed_between_any_two_calls_it_is_the_one_or_the_other(tmp_path: Path, calls: int) -> None:
    path = tmp_path / FILE
    LatchStore(path).set(HOT)
    through = run_and_die(path, calls, 0, lambda store: store.set(COVER))
    left = LatchStore(path).all()
    assert left == (HOT, COVER) if through else left in ((HOT,), (HOT, COVER))
    assert through is (calls >= 6)


@pytest.mark.parametrize("calls", range(7))
def test_killed_while_clearing_it_is_set_or_cleared_and_never_damaged(tmp_path: Path, calls: int) -> None:
    path = tmp_path / FILE
    for latch in (HOT, COVER):
        LatchStore(path).set(latch)
    run_and_die(path, calls, 5, lambda store: store.clear("over-temperature"))
    assert LatchStore(path).all() in ((HOT, COVER), (COVER,))


def test_a_disk_that_is_full_does_not_undo_a_latch_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LatchStore(tmp_path / FILE)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        store.set(HOT)
    assert store.all() == (HOT,)


def test_a_latch_that_could_not_be_cleared_on_disk_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LatchStore(tmp_path / FILE)
    store.set(HOT)

    def broken(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        store.clear("over-temperature")
    assert store.all() == (HOT,)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=12))
def test_the_file_follows_the_store(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bool]]) -> None:
    path = tmp_path_factory.mktemp("latches") / FILE
    store, expected = LatchStore(path), dict[str, str]()
    for number, (name, setting) in enumerate(steps):
        if setting:
            store.set(Latch(name, f"cause {number}", "now"))
            expected.setdefault(name, f"cause {number}")
        elif name in expected:
            store.clear(name)
            del expected[name]
        assert {held.name: held.cause for held in LatchStore(path).all()} == expected


def test_file_says_everything(tmp_path: Path) -> None:
    LatchStore(tmp_path / FILE).set(COVER)
    (entry,) = json.loads((tmp_path / FILE).read_text())["latches"]
    assert entry["snapshot"] == [{"sink_c": 30.5, "at": "x"}]


def test_processes_that_are_killed_at_random_instants_lose_none(tmp_path: Path) -> None:
    kills = kill(25, 1, tmp_path)
    assert kills.kills == 25
    assert kills.acknowledged >= 25
    assert (kills.lost, kills.unreadable) == (0, 0)
