"""The authentication pool: addresses, durability, the ring, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmodd.keys.pool import PAD_BYTES, ROUND_BYTES, Pool, PoolRefused
from qmodd.keys.store import Database
from qmodd.randomness import SeededRandomness


@pytest.fixture
def start_file(ram_path: Path) -> Path:
    path = ram_path / "start"
    path.write_bytes(SeededRandomness(1).bytes(65_536))
    path.chmod(0o600)
    return path


def test_pool_addresses_are_disjoint_and_claims_last(ram_path: Path, start_file: Path) -> None:
    db = Database(ram_path / "db")
    pool = Pool(ram_path / "ring", start_file, db)
    with pytest.raises(PoolRefused, match="not in use"):
        pool.pad(0, 0, 0)
    pool.claim(0)
    pool.claim(2)  # round 1 is lost
    pads = [bytes(pool.pad(*at)) for r in (0, 1, 2) for at in ((0, r, 0), (0, r, 1), (1, r, 0), (1, r, 1), (0, r, 2))]
    assert len(set(pads)) == 15
    assert pads[0] == start_file.read_bytes()[64:96]
    assert all(len(p) == PAD_BYTES for p in pads)
    for bad in ((1, 0, 2), (2, 0, 0), (0, 0, 3), (0, 3, 0)):
        with pytest.raises(PoolRefused):
            pool.pad(*bad)
    with pytest.raises(PoolRefused, match="asked for"):
        pool.claim(1)
    with pytest.raises(PoolRefused, match="asked for"):
        pool.claim(200)
    pool.close()
    db.close()
    start_file.unlink()  # needed once only
    db = Database(ram_path / "db")
    again = Pool(ram_path / "ring", start_file, db)
    assert again.next_round == 3
    again.skip_to(2)
    again.skip_to(5)
    assert again.next_round == 5
    with pytest.raises(PoolRefused, match="not the same pool"):
        again.skip_to(5000)
    again.close()
    db.close()


def test_pool_ring_is_refilled_in_order_and_keeps_what_is_needed(ram_path: Path, start_file: Path) -> None:
    db = Database(ram_path / "db")
    pool = Pool(ram_path / "ring", start_file, db)
    total, rng = pool.written // ROUND_BYTES, SeededRandomness(2)
    stream = bytearray(start_file.read_bytes()[64 : 64 + pool.capacity])
    for round_ in range(3 * total):
        pool.claim(round_)
        data = bytearray(rng.bytes(192))
        end = pool.stage(data, round_)
        assert pool.stage(data, round_) == end  # a crash in between repeats it
        stream += data[: end - len(stream)]
        pool.advance(end)
        assert pool.rounds_left >= total - 3
        at = round_ * ROUND_BYTES
        for phase, direction in ((0, 0), (1, 1), (2, 0)):
            index = {(0, 0): 0, (1, 1): 3, (2, 0): 4}[phase, direction]
            assert pool.pad(direction, round_, phase) == stream[at + 32 * index : at + 32 * index + 32]
    with pytest.raises(PoolRefused):
        pool.pad(0, 0, 0)
    pool.close()
    db.close()


def test_pool_says_when_it_is_low_and_stops_at_the_reserve(ram_path: Path, start_file: Path) -> None:
    db = Database(ram_path / "db")
    pool = Pool(ram_path / "ring", start_file, db)
    assert not pool.low
    assert pool.why_not() is None
    while pool.why_not() is None:
        pool.claim(pool.next_round)
    assert pool.low
    assert pool.rounds_left == 2
    with pytest.raises(PoolRefused, match="re-key"):
        pool.claim(pool.next_round)
    pool.close()
    with db.transaction() as c:
        c.execute("DELETE FROM pool")
    with pytest.raises(PoolRefused, match="lost"):
        _ = Pool.written.fget(pool)  # type: ignore[attr-defined]
    db.close()


def test_pool_refuses_bad_files(ram_path: Path, start_file: Path) -> None:
    db = Database(ram_path / "db")
    with pytest.raises(PoolRefused, match="cannot be read"):
        Pool(ram_path / "ring", ram_path / "none", db)
    start_file.chmod(0o644)
    with pytest.raises(PoolRefused, match="mode 0644"):
        Pool(ram_path / "ring", start_file, db)
    start_file.chmod(0o600)
    start_file.write_bytes(bytes(100))
    with pytest.raises(PoolRefused, match="at least"):
        Pool(ram_path / "ring", start_file, db)
    db.close()
