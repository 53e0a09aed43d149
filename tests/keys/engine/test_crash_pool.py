"""The authentication pool over kills: no pad bit serves twice, and both sides' pools stay the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.crypto import mac
from qmodd.keys.pool import MINIMUM_BYTES, PAD_BYTES, PHASES, RESERVE_ROUNDS, ROUND_BYTES, Pool, PoolRefused
from qmodd.keys.store import Database
from qmodd.randomness import SeededRandomness
from tests.keys.engine.adversary import Campaign, campaign

ADDRESSES = [(d, p) for d in (0, 1) for p in range(PHASES)] + [(0, PHASES)]


@contextmanager
def directory() -> Iterator[Path]:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory, prefix="qmodd-pool-") as name:
        yield Path(name)


class Side:
    """A module's pool; `die` is a kill, after which only what was durable is known."""

    def __init__(self, path: Path, start: Path) -> None:
        self.path, self.start = path, start
        self.boot()

    def boot(self) -> None:
        self.db = Database(self.path.with_suffix(".db"))
        self.pool = Pool(self.path, self.start, self.db)

    def die(self) -> None:
        self.pool.close()
        self.db.close()
        self.boot()

    def shut(self) -> None:
        self.pool.close()
        self.db.close()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["commit", "commit", "commit", "fail", "skip"]),
        st.sampled_from(["", "", "alice", "bob", "alice staged", "bob staged", "both"]),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=25, deadline=None)
@given(STEPS, st.sampled_from([ROUND_BYTES, 2 * ROUND_BYTES, 40 * ROUND_BYTES]))
def test_no_pad_bit_is_used_twice_whatever_is_killed(steps: list[tuple[str, str, int]], refill: int) -> None:
    """Every pad read is of logical bytes that were never read before, and is what was put there."""
    with directory() as home:
        rng = SeededRandomness(3)
        start = home / "start"
        start.write_bytes(rng.bytes(MINIMUM_BYTES))
        start.chmod(0o600)
        alice, bob = Side(home / "alice", start), Side(home / "bob", start)
        stream = bytearray(start.read_bytes()[64 : 64 + alice.pool.capacity])
        used: set[int] = set()
        for what, killed, jump in steps:
            if alice.pool.why_not() or bob.pool.why_not():
                break
            round_ = alice.pool.next_round + (jump if what == "skip" else 0)
            try:
                alice.pool.claim(round_)
                if "alice" in killed:
                    alice.die()
                bob.pool.claim(round_)
            except PoolRefused:
                continue
            if killed == "both":
                alice.die()
                bob.die()
            assert round_ not in used  # a round is its bytes, in the endless stream of all that was ever put in
            used.add(round_)
            for d, p in ADDRESSES:
                pads = [bytes(s.pool.pad(d, round_, p)) for s in (alice, bob)]
                at = round_ * ROUND_BYTES + (2 * PHASES if p == PHASES else PHASES * d + p) * PAD_BYTES
                assert pads[0] == pads[1] == stream[at : at + PAD_BYTES]
            if what != "commit":
                continue
            share = rng.bytes(refill)
            for name, side in (("alice", alice), ("bob", bob)):
                end = side.pool.stage(bytearray(share), round_)
                if killed == f"{name} staged":
                    side.die()
                    assert side.pool.written < end or end == side.pool.written
                    assert side.pool.stage(bytearray(share), round_) == end
                side.pool.advance(end)
            stream += share[: alice.pool.written - len(stream)]
            assert alice.pool.written == bob.pool.written == len(stream)
        for side in (alice, bob):
            for gone in used:
                with pytest.raises(PoolRefused):
                    side.pool.claim(gone)
            assert side.pool.rounds_left == max(0, len(stream) // ROUND_BYTES - side.pool.next_round)
            side.shut()


def test_a_reserve_is_left_when_the_pool_runs_dry() -> None:
    with directory() as home:
        start = home / "start"
        start.write_bytes(SeededRandomness(3).bytes(MINIMUM_BYTES))
        start.chmod(0o600)
        side = Side(home / "alice", start)
        rounds = 0
        while side.pool.why_not() is None:
            side.pool.claim(side.pool.next_round)
            rounds += 1
        assert rounds == side.pool.capacity // ROUND_BYTES - RESERVE_ROUNDS
        side.die()
        with pytest.raises(PoolRefused, match="re-key"):
            side.pool.claim(side.pool.next_round)
        side.shut()


def test_engines_under_attack_read_each_pad_for_one_transcript(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over kills and cuts one pad of Alice's or Bob's makes one tag, of one text."""
    texts: dict[tuple[bytes, bytes], set[bytes]] = {}
    made = mac.one_time_tag

    def tag(key: bytes | bytearray, parts: list[bytes]) -> bytes:
        texts.setdefault((bytes(key[:16]), bytes(key[16:])), set()).add(mac.digest(b"".join(parts)))
        return made(key, parts)

    monkeypatch.setattr(mac, "one_time_tag", tag)
    kills = ("kill_speaker", "kill_listener", "kill_both", "kill_at_step")
    monkeypatch.setattr(Campaign, "ATTACKS", ("nothing", "cut", "drop_once", *kills))
    score = campaign(8, 80)
    assert score.kills > 20
    assert len(texts) > 100
    assert all(len(said) == 1 for said in texts.values())
