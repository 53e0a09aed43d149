"""The history on disk: every change is whole or not there, whenever the writer is killed; raw readings beside it."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.raw import RawStore
from calibration.record import Record, Renewal
from calibration.store import Change, Kind, RecordStore, StoreDamaged

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def record(name: str, *, x: float = 1.0, **parents: int) -> Record:
    return Record(name=name, value={"x": x}, parents=parents, created=NOW, valid_until=NOW + DAY)


def renewal(name: str, version: int = 1, days: float = 9.0) -> Renewal:
    return Renewal(name=name, version=version, at=NOW, valid_until=NOW + days * DAY, read={"x_v": 0.5})


def family(store: RecordStore) -> None:
    """a, b on a, c on b, d alone; a twice, with everything that follows."""
    for r in (record("a"), record("b", a=1), record("c", b=1), record("d")):
        store.append(r)
    store.append(record("a", x=2.0), {"b": "a was redone", "c": "a was redone", "nobody": "is not there"})


def picture(store: RecordStore) -> dict[str, Any]:
    """All that a store says."""
    return {
        n: (store.history(n), store.active(n), store.invalid_reason(n), store.renewal(n), store.valid_until(n))
        for n in store.names()
    }


CHANGES: dict[str, Callable[[RecordStore], object]] = {
    "record": lambda s: s.append(record("b", x=3.0, a=2), {"c": "b was redone"}),
    "renewed": lambda s: s.renew(renewal("d")),
    "rollback": lambda s: s.rollback("a", "by anna"),
    "invalid": lambda s: s.invalidate("d", "data check: drifted"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_whole_or_not_there_at_every_byte(tmp_path: Path, name: str) -> None:
    path = tmp_path / "r.jsonl"
    store = RecordStore(path)
    family(store)
    before, size = picture(store), path.stat().st_size
    CHANGES[name](store)
    after, raw = picture(store), path.read_bytes()
    assert before != after
    for cut in range(size, len(raw) + 1):
        path.write_bytes(raw[:cut])
        again = RecordStore(path)
        assert picture(again) == (after if cut == len(raw) else before)
        # What is left is a sound file: the next change stands on a line of its own.
        assert path.stat().st_size == (len(raw) if cut == len(raw) else size)
    path.write_bytes(raw[:-3])
    again = RecordStore(path)
    CHANGES[name](again)
    assert picture(RecordStore(path)) == after


def write_until_killed(path: Path, told: int) -> None:
    """In a process of its own: change after change, each told on a pipe once it is durable."""
    store = RecordStore(path)
    number = len(store.history("a"))
    while True:
        number += 1
        stored = store.append(record("a", x=float(number)), {"b": f"a {number}"})
        child = store.append(record("b", a=stored.version))
        store.renew(renewal("b", child.version, days=float(number)))
        os.write(told, f"{number}\n".encode())


@pytest.mark.processes
def test_a_killed_writer_loses_nothing_that_it_told(tmp_path: Path) -> None:
    path, rng = tmp_path / "r.jsonl", random.Random(7)
    for _ in range(12):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            try:
                write_until_killed(path, write)
            finally:
                os._exit(1)
        os.close(write)
        assert select.select([read], [], [], 20.0)[0]
        time.sleep(rng.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told = int(os.read(read, 1 << 20).split()[-1])
        os.close(read)
        again = RecordStore(path)
        made = len(again.history("a"))
        assert made in (told, told + 1)
        assert [r.value["x"] for r in again.history("a")] == [float(n + 1) for n in range(made)]
        b = again.active("b")
        assert b is not None
        assert (b.parents["a"] == made) or again.invalid_reason("b") == f"a {made}"
        if made == told:
            assert again.valid_until("b") == NOW + told * DAY


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.jsonl"
    store = RecordStore(path)
    family(store)
    before = path.read_bytes()
    calls = []

    def full(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            store.append(record("a", x=9.0))
    assert path.read_bytes() == before
    assert store.active("a") == record("a", x=2.0).model_copy(update={"version": 2})
    assert store.append(record("a", x=9.0)).version == 3
    assert picture(RecordStore(path)) == picture(store)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"tombstone": {"name": "a"}}, "unknown change tombstone: written by a newer version"),
        ({}, "unknown change \\(empty\\)"),
        ({"record": {"name": "a", "colour": "red"}}, "colour"),
        ({"rollback": {"name": "a", "version": 7}}, "a has no version 7"),
        ({"rollback": {"name": "z", "version": 1}}, "'z'"),
        (
            {"record": json.loads(record("a").model_copy(update={"version": 9}).to_json())},
            "version 9 follows version 2",
        ),
        ({"renewed": {"name": "a"}}, "version"),
        ([1, 2], "line 6"),
    ],
)
def test_foreign_lines_are_named_by_file_and_line(tmp_path: Path, line: Any, said: str) -> None:
    path = tmp_path / "r.jsonl"
    family(RecordStore(path))
    with open(path, "a") as f:
        f.write(json.dumps(line) + "\n")
    with pytest.raises(StoreDamaged, match=said) as e:
        RecordStore(path)
    assert str(e.value).startswith(f"{path} line 6: ")


def test_lines_of_the_first_version_are_read(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    old = json.loads(record("a").model_copy(update={"version": 1}).to_json())
    del old["layout"], old["residuals"]
    lines = [{"record": old}, {"invalid": {"name": "a", "why": "said so"}}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert RecordStore(path).invalid_reason("a") == "said so"


def test_rollback_takes_what_rests_on_it_along() -> None:
    store, heard = RecordStore(), list[Change]()
    family(store)
    for name, parents in (("b", {"a": 2}), ("c", {"b": 2})):
        store.append(record(name, **parents))
    assert store.dependents("a") == ("b", "c")
    store.subscribe(heard.append)
    store.rollback("a", "by anna")
    why = "a was rolled back from version 2 to 1: by anna"
    assert {n: store.invalid_reason(n) for n in "abcd"} == {"a": None, "b": why, "c": why, "d": None}
    assert [(c.kind, c.name, c.why) for c in heard] == [
        (Kind.ROLLBACK, "a", why),
        (Kind.INVALID, "b", why),
        (Kind.INVALID, "c", why),
    ]
    store.unsubscribe(heard.append)
    store.append(record("a", x=4.0))
    assert len(heard) == 3
    assert store.active("a") == store.history("a")[2]


def test_a_renewal_belongs_to_its_version() -> None:
    store = RecordStore()
    family(store)
    store.renew(renewal("a", 2))
    assert store.valid_until("a") == NOW + 9 * DAY
    for wrong in (renewal("a", 1), renewal("nobody"), renewal("b")):
        with pytest.raises(LookupError, match="not a record in force"):
            store.renew(wrong)
    store.rollback("a")
    assert (store.renewal("a"), store.valid_until("a"), store.valid_until("nobody")) == (None, NOW + DAY, None)
    with pytest.raises(ValueError, match="without a zone"):
        Renewal(name="a", version=1, at=NOW.replace(tzinfo=None), valid_until=NOW)


@pytest.mark.parametrize("on_disk", [True, False])
def test_the_export_has_records_and_what_happened_to_them(tmp_path: Path, on_disk: bool) -> None:
    store = RecordStore(tmp_path / "r.jsonl" if on_disk else None)
    assert list(store.export_changes()) == []
    family(store)
    store.renew(renewal("d"))
    store.rollback("a", "by anna")
    assert [json.loads(line)["name"] for line in store.export()] == ["a", "a", "b", "c", "d"]
    kinds = [sorted(json.loads(line)) for line in store.export_changes()]
    assert kinds == [["record"]] * 4 + [["invalid", "record"], ["renewed"], ["invalid", "rollback"]]


# raw readings


@pytest.mark.parametrize("on_disk", [True, False])
def test_raw_readings_are_found_by_their_digest(tmp_path: Path, on_disk: bool) -> None:
    raw = RawStore(tmp_path / "raw" if on_disk else None)
    name = raw.put({"power_w": np.array([0.0, 0.01]), "seen": np.eye(2), "one": 3.0})
    found = raw.get(name)
    assert found is not None
    assert found["seen"].shape == (2, 2)
    assert raw.put(found) == name
    assert raw.get("0" * 64) is None


def test_raw_readings_that_were_changed_are_not_believed(tmp_path: Path) -> None:
    raw = RawStore(tmp_path)
    name = raw.put({"x": [1.0, 2.0]})
    path = tmp_path / f"{name}.json"
    path.write_text(path.read_text().replace("2.0", "2.5"))
    assert raw.get(name) is None
    path.write_text("{")
    assert raw.get(name) is None


@pytest.mark.parametrize("on_disk", [True, False])
def test_thinning_keeps_what_is_in_force(tmp_path: Path, on_disk: bool) -> None:
    needed: set[str] = set()
    raw = RawStore(tmp_path / "raw" if on_disk else None, keep=3, needed=lambda: needed)
    names = []
    for i in range(6):
        names.append(raw.put({"x": [float(i)]}))
        if i == 0:
            needed.add(names[0])
        if on_disk:
            os.utime(tmp_path / "raw" / f"{names[-1]}.json", (i, i))
    assert [i for i, n in enumerate(names) if raw.get(n) is not None] == [0, 4, 5]
