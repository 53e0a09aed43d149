"""`usable` and `revoke`: what is believed, what it does, what is said about it."""

from __future__ import annotations

import base64
import hashlib
import json
from uuid import UUID

import pytest

from qmodd.messages import KeyNotice
from qmodd.receive import NotBelieved, Receiver, read_states
from tests.receiver.build import ALICE, OTHER, answer, batch, key_of, notice, said, status
from tests.uplink_fakes import HandClock


def states(receiver: Receiver) -> dict[int, str]:
    return {UUID(i).int: s for i, s in read_states(receiver.store).items()}


def test_a_key_is_handed_out_only_after_the_word_and_once(receiver: Receiver) -> None:
    receiver.process(batch(1, 1, 2))
    assert receiver.hand_out.take("somebody", 10) == []
    assert said(receiver.notice(notice("usable", [1, 7]))) == ["usable", "unknown"]
    (key,) = receiver.hand_out.take("somebody", 10)
    assert (key.key_id, bytes(key.key)) == (UUID(int=1), key_of(1))
    assert receiver.hand_out.take("somebody", 10) == []
    assert states(receiver) == {1: "handed_out", 2: "pending"}
    assert said(receiver.notice(notice("usable", [1]))) == ["usable"]  # its word again changes nothing
    assert receiver.table.audit() is None


def test_the_acknowledgement_is_over_the_bytes_of_the_body(receiver: Receiver) -> None:
    sent = notice("revoke", [1], 77)
    body = answer(receiver.notice(sent))
    assert body.digest == hashlib.sha256(json.loads(sent)["body"].encode()).hexdigest()
    assert body.notice_uuid == str(UUID(int=77))


def test_a_revocation_is_final_whatever_the_order(receiver: Receiver) -> None:
    receiver.process(batch(1, 1, 2, 3))
    receiver.notice(notice("usable", [2, 3]))
    receiver.hand_out.take("somebody", 1)
    assert said(receiver.notice(notice("revoke", [1, 2, 3, 8]))) == ["revoked"] * 4
    assert said(receiver.notice(notice("revoke", [1, 2, 3, 8]))) == ["revoked"] * 4
    assert said(receiver.notice(notice("usable", [1, 2, 3, 8]))) == ["revoked"] * 4
    assert states(receiver) == dict.fromkeys((1, 2, 3, 8), "revoked")
    assert receiver.hand_out.available() == 0
    assert receiver.digests() == {}
    assert receiver.counts["revoked_after_hand_out"] == 2  # told with each of the two notices


def test_a_key_that_ended_before_the_word_is_expired_and_an_unsynchronised_clock_does_not_say_so(
    receiver: Receiver,
) -> None:
    receiver.process(batch(1, 1, 2))
    receiver.clock = HandClock(t=101.0, synchronised=False)
    assert said(receiver.notice(notice("usable", [1]))) == ["usable"]
    receiver.clock = HandClock(t=101.0)
    assert said(receiver.notice(notice("usable", [1, 2]))) == ["expired", "expired"]
    assert said(receiver.notice(notice("usable", [1, 2]))) == ["expired", "expired"]


def test_no_module_has_a_say_in_the_keys_of_another(receiver: Receiver) -> None:
    receiver.process(batch(1, 1))
    assert said(receiver.notice(notice("usable", [1], sender=OTHER))) == ["unknown"]
    assert said(receiver.notice(notice("revoke", [1], sender=OTHER))) == ["revoked"]
    assert said(receiver.notice(notice("usable", [1]))) == ["usable"]


def test_notices_that_are_not_believed_do_nothing(receiver: Receiver) -> None:
    receiver.process(batch(1, 1))
    good = KeyNotice.model_validate_json(notice("usable", [1]))
    forged = good.model_copy(update={"body": good.body.replace('"usable"', '"revoke"')})
    for payload, why in (
        (b"{}", "malformed"),
        (b"x" * 140_000, "at most"),
        (forged.payload(), "signature does not verify"),
        (good.model_copy(update={"signature": "AAA"}).payload(), "malformed"),
        (notice("usable", [1], sender_kid="0" * 32), "unknown sender"),
        (notice("usable", [1], module=OTHER.name), "another module"),
        (notice("usable", [1], recipient="kms2"), "another recipient"),
    ):
        with pytest.raises(NotBelieved, match=why):
            receiver.notice(payload)
    with pytest.raises(NotBelieved, match="on the topic of revoke"):
        receiver.handle("revoke", good.payload())
    with pytest.raises(NotBelieved, match="malformed"):
        receiver.handle("", good.payload())
    assert states(receiver) == {1: "pending"}
    assert said(receiver.handle("usable", good.payload())) == ["usable"]


def test_a_signature_for_another_purpose_is_none(receiver: Receiver) -> None:
    body = KeyNotice.model_validate_json(notice("usable", [1])).body
    signature = base64.b64encode(ALICE.key.sign(body.encode(), b"qmodd-request-v1")).decode()
    with pytest.raises(NotBelieved, match="ML-DSA"):
        receiver.notice(KeyNotice(body=body, signature=signature).payload())


def test_lifetimes_end_and_rows_go(receiver: Receiver) -> None:
    receiver.process(batch(1, 1, 2, 3))
    receiver.notice(notice("usable", [1, 2]))
    receiver.hand_out.take("somebody", 1)
    for t, synchronised, want in (
        (99.0, True, {1: "handed_out", 2: "usable", 3: "pending"}),
        (1000.0, False, {1: "handed_out", 2: "usable", 3: "pending"}),
        (101.0, True, {1: "handed_out", 2: "expired", 3: "expired"}),
        (201.0, True, {}),
    ):
        receiver.clock = HandClock(t, synchronised)
        receiver.sweep()
        assert states(receiver) == want
        assert receiver.table.audit() is None
    totals = receiver.table.totals()
    assert (totals["imported"], totals["purged"]) == (3, 3)
    assert receiver.table.rows("SELECT * FROM batch") == []


def test_after_a_purge_a_replay_brings_nothing_back(receiver: Receiver) -> None:
    data = batch(1, 1)
    receiver.process(data)
    receiver.clock = HandClock(201.0)
    receiver.sweep()
    assert status(receiver.process(data)) == ["expired"]
    receiver.clock = HandClock(0.0, synchronised=False)
    assert status(receiver.process(batch(1, 1, batch_uuid=bytes(16)))) == ["replayed"]
