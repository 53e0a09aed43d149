"""Another pad in the place of a pool: the old one is overwritten, and a kill at any step ends in one of the two."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from qmodd.keys.pool import MINIMUM_BYTES, Pool, PoolRefused, fingerprint, forget_position, read_pad
from qmodd.keys.store import Database
from qmodd.randomness import SeededRandomness


class Killed(BaseException):
    """The power goes."""


def pad(seed: int, size: int = MINIMUM_BYTES) -> bytearray:
    return bytearray(SeededRandomness(seed).bytes(size))


def write(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.touch(mode)
    path.chmod(mode)
    path.write_bytes(data)
    return path


class Side:
    def __init__(self, home: Path) -> None:
        home.mkdir(exist_ok=True)
        self.ring, self.start = home / "pool.ring", write(home / "start", pad(1))
        self.db = Database(home / "keys.db")
        self.pool = Pool(self.ring, self.start, self.db)

    def close(self) -> None:
        self.pool.close()
        self.db.close()


@pytest.fixture
def side(tmp_path: Path) -> Any:
    one = Side(tmp_path)
    yield one
    one.close()


def test_it_begins_anew_and_is_the_same_object(side: Side) -> None:
    secret = side.pool.secret
    for round_ in range(5):
        side.pool.claim(round_)
    bigger = pad(2, 2 * MINIMUM_BYTES)
    side.pool.replace(bytearray(bigger))
    assert secret is side.pool.secret
    assert secret == bigger[:64]
    assert side.pool.next_round == 0
    assert side.pool.written == side.pool.capacity > MINIMUM_BYTES
    side.pool.claim(0)
    assert side.pool.pad(0, 0, 0) == bigger[64:96]
    with pytest.raises(PoolRefused, match="round 3 is not in use"):
        side.pool.pad(0, 3, 0)


def test_old_bytes_are_overwritten_on_disk(side: Side) -> None:
    with open(side.ring, "rb") as seen:
        side.pool.replace(pad(2))
        seen.seek(0)
        assert seen.read() == bytes(MINIMUM_BYTES)
    assert bytes(pad(1)[64:128]) not in side.ring.read_bytes()
    assert not side.ring.with_suffix(".new").exists()


def test_a_position_that_was_set_back_never_stands_beside_an_old_pad(side: Side) -> None:
    def fails(db: Any) -> None:
        raise OSError(28, "No space left on device")

    side.pool.claim(0)
    with pytest.raises(OSError, match="No space"):
        side.pool.replace(pad(2), fails)
    assert (side.pool.secret, side.pool.next_round) == (pad(2)[:64], 1)
    side.pool.replace(pad(2))
    assert (side.pool.secret, side.pool.next_round) == (pad(2)[:64], 0)


def test_commits_are_counted_from_its_begin(side: Side) -> None:
    assert side.pool.since_begun(0) == 0
    with side.db.transaction() as db:
        db.execute("INSERT INTO blocks (uuid, seq, record) VALUES (?, 5, '{}')", (b"b" * 16,))
    assert side.pool.since_begun(5) == 5
    side.pool.replace(pad(2))
    assert side.pool.since_begun(5) == 0
    assert side.pool.since_begun(7) == 2


def test_killed_anywhere_the_same_again_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in count():
        side, new, survived = Side(tmp_path / str(step)), pad(2), False
        side.pool.claim(0)
        done: list[str] = []

        def counted(real: Callable[..., Any], step: int = step, done: list[str] = done) -> Callable[..., Any]:
            def call(*a: Any, **k: Any) -> Any:
                out = real(*a, **k)
                done.append(real.__name__)
                if len(done) > step:
                    raise Killed
                return out

            return call

        try:
            with monkeypatch.context() as patch:
                for name in ("fsync", "replace", "dup2", "write"):
                    patch.setattr(os, name, counted(getattr(os, name)))
                side.pool.replace(bytearray(new))
                survived = True
        except Killed:
            pass
        side.close()
        again = Side(tmp_path / str(step))
        assert again.pool.secret == new[:64] or (again.pool.secret == pad(1)[:64] and again.pool.next_round == 1)
        again.pool.replace(bytearray(new))
        assert again.pool.secret == new[:64]
        assert again.pool.next_round == 0
        again.pool.claim(0)
        assert again.pool.pad(1, 0, 0) == new[64 + 64 : 64 + 96]
        again.close()
        if survived:
            break
    assert step > 5


def test_a_pad_has_to_be_there_large_enough_and_ones_own(tmp_path: Path, side: Side) -> None:
    with pytest.raises(PoolRefused, match="at least 65536"):
        side.pool.replace(bytearray(100))
    with pytest.raises(PoolRefused, match="at least 65536"):
        read_pad(write(tmp_path / "short", b"x"))
    with pytest.raises(PoolRefused, match="cannot be read"):
        read_pad(tmp_path / "none")
    with pytest.raises(PoolRefused, match="0644"):
        read_pad(write(tmp_path / "open", pad(3), 0o644))
    assert read_pad(side.start) == pad(1)


def test_fingerprints_tell_pads_and_links_apart() -> None:
    assert fingerprint(pad(1), "lab") == fingerprint(pad(1), "lab")
    assert len({fingerprint(pad(s), link) for s in (1, 2) for link in ("lab", "other")}) == 4


def test_a_pool_may_begin_from_bytes_and_be_forgotten(tmp_path: Path) -> None:
    db = Database(tmp_path / "keys.db")
    pool = Pool(tmp_path / "ring", pad(7), db)
    assert pool.secret == pad(7)[:64]
    pool.close()
    forget_position(db)
    pool = Pool(tmp_path / "ring", pad(8), db)
    assert pool.secret == pad(8)[:64]
    pool.close()
    db.close()
