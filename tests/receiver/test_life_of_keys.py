"""Everything that may happen to a receiver, in any order, against a model that fits on a page."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from qmodd.receive import read_states
from tests.receiver.build import KEEP_S, LIFETIME_S, batch, key_of, notice, receiver_in, said, status
from tests.uplink_fakes import HandClock

KEYS = st.integers(1, 12)


class LifeOfKeys(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.clock = HandClock()
        self.receiver = receiver_in(self.directory, self.clock)
        self.seq = 0
        self.sent: dict[int, tuple[bytes, bytes]] = {}
        self.state: dict[int, str] = {}
        self.revoked: set[int] = set()
        self.out: list[int] = []

    def teardown(self) -> None:
        self.receiver.close()
        shutil.rmtree(self.directory)

    @rule(numbers=st.lists(KEYS, min_size=1, max_size=3, unique=True))
    def a_batch_comes(self, numbers: list[int]) -> None:
        self.seq += 1
        data = batch(self.seq, *numbers)
        ack = self.receiver.process(data)
        self.sent[self.seq] = (data, ack)
        expired = self.clock.synchronised and self.clock.t > LIFETIME_S
        for n, word in zip(numbers, status(ack), strict=True):
            before = self.state.get(n)
            if expired:
                assert word == "expired"
            elif n in self.revoked:
                assert word == "revoked"
            elif before in (None, "pending", "usable"):
                assert word == "imported"
                self.state.setdefault(n, "pending")
            else:
                assert word == {"handed_out": "replayed", "expired": "expired"}[before]

    @rule(back=st.integers(0, 5))
    def an_old_batch_comes_again(self, back: int) -> None:
        if self.seq - back in self.sent:
            data, ack = self.sent[self.seq - back]
            again = self.receiver.process(data)
            # After the purge its acknowledgement is forgotten; its keys stay out nevertheless.
            assert again == ack or not set(status(again)) & {"imported"}

    @rule(numbers=st.lists(KEYS, min_size=1, max_size=4, unique=True))
    def they_are_said_to_be_usable(self, numbers: list[int]) -> None:
        ended = self.clock.synchronised and self.clock.t > LIFETIME_S
        for n, word in zip(numbers, said(self.receiver.notice(notice("usable", numbers))), strict=True):
            before = self.state.get(n)
            if before in ("pending", "usable"):
                self.state[n] = "expired" if ended else "usable"
            want = {None: "unknown", "handed_out": "usable"}.get(before, self.state.get(n))
            assert word == ("revoked" if n in self.revoked else want)

    @rule(numbers=st.lists(KEYS, min_size=1, max_size=2, unique=True))
    def they_are_revoked(self, numbers: list[int]) -> None:
        assert set(said(self.receiver.notice(notice("revoke", numbers)))) == {"revoked"}
        for n in numbers:
            self.revoked.add(n)
            if n in self.state:
                self.state[n] = "revoked"

    @rule(at_most=st.integers(1, 3))
    def somebody_takes_keys(self, at_most: int) -> None:
        keys = self.receiver.hand_out.take("somebody", at_most)
        ended = self.clock.synchronised and self.clock.t > LIFETIME_S
        able = [] if ended else [n for n, s in self.state.items() if s == "usable"]
        assert len(keys) == min(at_most, len(able))
        for key in keys:
            n = key.key_id.int
            assert n in able
            assert bytes(key.key) == key_of(n)
            self.state[n] = "handed_out"
            self.out.append(n)

    @rule(seconds=st.sampled_from([1.0, 60.0, 120.0]), synchronised=st.booleans())
    def time_passes(self, seconds: float, synchronised: bool) -> None:
        self.clock.t += seconds
        self.clock.synchronised = synchronised
        self.receiver.sweep()
        if synchronised and self.clock.t > LIFETIME_S:
            self.state = {n: "expired" if s in ("pending", "usable") else s for n, s in self.state.items()}
        if synchronised and self.clock.t > KEEP_S:
            # A row that is gone takes its revocation with it: no batch can bring the key back.
            self.revoked -= {n for n, s in self.state.items() if s == "revoked"}
            self.state.clear()

    @rule()
    def it_starts_anew(self) -> None:
        self.receiver.close()
        self.receiver = receiver_in(self.directory, self.clock)

    @invariant()
    def the_store_says_what_happened(self) -> None:
        assert read_states(self.directory) == {
            **{_id(n): "revoked" for n in self.revoked},
            **{_id(n): s for n, s in self.state.items()},
        }
        assert self.receiver.table.audit() is None

    @invariant()
    def what_is_over_has_no_bytes(self) -> None:
        digests = self.receiver.digests()
        assert set(digests) == {_id(n) for n, s in self.state.items() if s in ("pending", "usable")}


def _id(n: int) -> str:
    return str(UUID(int=n))


LifeOfKeys.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestLifeOfKeys = LifeOfKeys.TestCase
