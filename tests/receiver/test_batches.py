"""Batches at the receiver: order of the checks, replays, conflicts, what lies on the disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd import receive
from qmodd.crypto.suites import OpeningKey
from qmodd.keys import envelope as e
from qmodd.keys.store import StoreRefused
from qmodd.receive import NotBelieved, Receiver, Window, read_digests, read_states
from qmodd.receiver.arrivals import Arrivals
from tests.receiver.build import ALICE, KMS, NOW, OTHER, batch, envelope, key_of, notice, receiver_in, status
from tests.uplink_fakes import HandClock


def test_keys_are_stored_and_can_be_compared_without_being_shown(receiver: Receiver) -> None:
    assert status(receiver.process(batch(1, 1, 2))) == ["imported", "imported"]
    digests = read_digests(receiver.store)
    assert digests == receiver.digests()
    assert list(digests) == [str(UUID(int=1)), str(UUID(int=2))]
    assert read_digests(receiver.store, states=["usable"]) == receiver.digests(["usable"]) == {}
    assert receiver.counts["imported"] == 2
    for name in (receive.STORE_FILE, "store.key"):
        assert stat.S_IMODE((receiver.store / name).stat().st_mode) == 0o600


def test_no_key_lies_in_the_clear_and_none_without_the_store_key(tmp_path: Path) -> None:
    receiver = receiver_in(tmp_path)
    receiver.process(batch(1, 1, 2))
    receiver.notice(notice("usable", [1]))
    everything = b"".join(f.read_bytes() for f in tmp_path.iterdir())
    assert key_of(1) not in everything
    assert key_of(2) not in everything
    receiver.close()
    (tmp_path / "store.key").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreRefused, match=r"store\.key: cannot be read"):
        receiver_in(tmp_path)
    (tmp_path / "store.key").write_bytes(os.urandom(32))
    (tmp_path / "store.key").chmod(0o600)
    with pytest.raises(StoreRefused, match="another key"):
        read_digests(tmp_path)
    wrong = receiver_in(tmp_path)
    with pytest.raises(StoreRefused):
        wrong.hand_out.take("x", 1)
    wrong.close()
    (tmp_path / "store.key").chmod(0o644)
    with pytest.raises(StoreRefused, match="0600"):
        receiver_in(tmp_path)


def test_a_known_batch_gets_its_first_acknowledgement_again_whatever_the_time(receiver: Receiver) -> None:
    data = batch(1, 1)
    first = receiver.process(data)
    receiver.clock = HandClock(t=10_000.0)
    assert receiver.process(data) == first
    assert len(receiver.digests()) == 1


def test_refusals_name_their_reason(receiver: Receiver) -> None:
    assert status(receiver.process(batch(1, 1, recipient_kid=bytes(16)))) == ["wrong_recipient"]
    assert status(receiver.process(batch(2, 1, suite="rot13"))) == ["wrong_suite"]
    assert status(receiver.process(batch(3, 1, not_before=0, not_after=NOW - 1))) == ["expired"]
    assert status(receiver.process(batch(4, 1))) == ["imported"]
    assert status(receiver.process(batch(4, 2, batch_uuid=bytes(16)))) == ["replayed"]
    assert status(receiver.process(envelope(5, {1: b"x" * 32, 3: b"c" * 32}))) == ["id_conflict", "imported"]
    assert status(receiver.process(batch(6, 1))) == ["imported"]  # the same key again is no conflict
    assert len(receiver.digests()) == 2
    assert receiver.table.totals()["imported"] == 2
    assert receiver.table.audit() is None


def test_the_first_check_that_fails_is_the_one_that_is_told(receiver: Receiver) -> None:
    receiver.process(batch(7, 1))
    wrong: dict[str, object] = {
        "batch_uuid": b"w" * 16,
        "recipient_kid": bytes(16),
        "suite": "rot13",
        "not_before": 0,
        "not_after": NOW - 1,
    }
    for n, (right, told) in enumerate(
        (
            ((), "wrong_recipient"),
            (("recipient_kid",), "wrong_suite"),
            (("recipient_kid", "suite"), "expired"),
            (("recipient_kid", "suite", "not_before", "not_after"), "replayed"),
        )
    ):
        fields = {k: v for k, v in wrong.items() if k not in right} | {"batch_uuid": bytes([n]) * 16}
        assert status(receiver.process(batch(7, 2, **fields))) == [told]
    assert status(receiver.process(batch(8, 2, suite="rot13"))) == ["wrong_suite"]
    # What was refused before the window has not used up its number.
    assert status(receiver.process(batch(8, 2, batch_uuid=b"x" * 16))) == ["imported"]


def test_a_key_that_was_here_before_is_not_taken_again(receiver: Receiver) -> None:
    receiver.process(batch(1, 1, 2, 3))
    receiver.notice(notice("usable", [1]))
    receiver.hand_out.take("somebody", 1)
    receiver.notice(notice("revoke", [2, 9]))
    assert status(receiver.process(batch(2, 1, 2, 9, 4))) == ["replayed", "revoked", "revoked", "imported"]
    assert status(receiver.process(batch(1, 3, sender=OTHER, batch_uuid=bytes(16)))) == ["id_conflict"]


def test_one_sender_has_no_say_in_another_s_batch_of_the_same_name(receiver: Receiver) -> None:
    mine = receiver.process(batch(1, 1))
    other = receiver.process(batch(1, 2, sender=OTHER))
    assert status(other) == ["imported"]
    assert receiver.process(batch(1, 1)) == mine


def test_what_cannot_be_opened_is_acknowledged_as_such(receiver: Receiver) -> None:
    header = e.Envelope.from_bytes(batch(1, 1)).header
    other = e.seal(header, [b"a" * 32], ALICE.key, OpeningKey.generate().public)
    assert status(receiver.process(other.to_bytes())) == ["cannot_open"]
    header = header.model_copy(update={"seq": 2, "batch_uuid": bytes(16)})
    raw = e.cbor.encode(header.model_dump())
    sealed = KMS.opening.public.seal(b"short", e.LABEL + raw)
    unsigned = e.Envelope(header, raw, sealed, b"")
    short = e.Envelope(header, raw, sealed, ALICE.key.sign(unsigned.signed, e.LABEL))
    assert status(receiver.process(short.to_bytes())) == ["wrong_key_size"]


def test_an_unsynchronised_clock_judges_no_lifetime(receiver: Receiver) -> None:
    receiver.clock = HandClock(t=10_000.0, synchronised=False)
    assert status(receiver.process(batch(1, 1))) == ["imported"]


def test_bytes_of_nobody_we_know_are_not_acknowledged(receiver: Receiver) -> None:
    with pytest.raises(NotBelieved, match="malformed"):
        receiver.process(b"x")
    with pytest.raises(NotBelieved, match="unknown sender"):
        receiver.process(batch(1, 1, sender_kid=bytes(16)))
    good = e.Envelope.from_bytes(batch(1, 1))
    with pytest.raises(NotBelieved, match="Ed25519"):
        receiver.process(e.Envelope(good.header, good.raw_header, good.sealed, bytes(3373)).to_bytes())
    assert receiver.digests() == {}


def test_the_store_lives_on(tmp_path: Path) -> None:
    data = batch(70, 1)
    for _ in range(2):
        receiver = receiver_in(tmp_path)
        assert status(receiver.process(data)) == ["imported"]
        receiver.close()
    assert len(read_digests(tmp_path)) == 1


def test_a_failure_on_the_way_leaves_nothing_and_the_batch_may_come_again(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(Exception):
        pass

    def cut(*_: object) -> None:
        raise Cut

    with monkeypatch.context() as m:
        m.setattr(Arrivals, "keep_ack", cut)
        with pytest.raises(Cut):
            receiver.process(batch(1, 1))
    assert read_states(receiver.store) == {}
    assert status(receiver.process(batch(1, 1))) == ["imported"]  # its number was not used up either


def test_a_store_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert read_digests(tmp_path) == read_states(tmp_path) == {}
    (tmp_path / receive.STORE_FILE).touch()
    assert read_digests(tmp_path) == read_states(tmp_path) == {}


def test_the_last_sequence_numbers_there_are(receiver: Receiver) -> None:
    last = 0xFFFF_FFFF_FFFF_FFFF
    assert status(receiver.process(batch(last, 1, batch_uuid=b"1" * 16))) == ["imported"]
    assert status(receiver.process(batch(last - 1, 2, batch_uuid=b"2" * 16))) == ["imported"]
    assert status(receiver.process(batch(last - 64, 3, batch_uuid=b"3" * 16))) == ["replayed"]


@settings(deadline=None)
@given(seqs=st.lists(st.integers(1, 200), max_size=60))
def test_the_window_accepts_each_number_once_and_none_older_than_64(seqs: list[int]) -> None:
    window, seen = Window(), set[int]()
    for seq in seqs:
        after = window.accept(seq)
        fresh = seq not in seen and (not seen or seq > max(seen) - 64)
        assert (after is not None) == fresh
        if after is not None:
            window = after
            seen.add(seq)
