"""Keys from the store through the outbox to a receiver, and back as a signed acknowledgement."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from qmodd.crypto.suites import OpeningKey, SigningKey
from qmodd.identity import KEY_ACK_CONTEXT, Recipient, Signer
from qmodd.keys import delivery
from qmodd.keys.delivery import BatchFacts, KeyDelivery, Terms
from qmodd.keys.envelope import Envelope, Provenance
from qmodd.messages import KeyAck, KeyAckBody
from qmodd.outbox import Outbox
from qmodd.randomness import SeededRandomness
from qmodd.receive import Receiver
from tests.uplink_fakes import EPOCH, START, HandClock, Log

SENDER = Signer("alice", SigningKey.generate())
KMS = Recipient("kms", OpeningKey.generate(), SigningKey.generate())
OTHER = Recipient("other", OpeningKey.generate(), SigningKey.generate())


@dataclass
class Keys:
    """A store of keys, all for one recipient."""

    state: dict[UUID, str] = field(default_factory=dict)
    given_out: list[bytearray] = field(default_factory=list)
    die_before_mark: bool = False
    why: list[str] = field(default_factory=list)
    tell: Callable[[str, object], None] = lambda name, what: None

    def distil(self, n: int) -> None:
        for _ in range(n):
            self.state[UUID(int=len(self.state) + 1)] = "distilled"

    def value(self, key_id: UUID) -> bytes:
        return key_id.bytes * 2

    def take_for_delivery(self, recipient: str, n: int) -> list[tuple[UUID, bytearray]]:
        if recipient != "kms":
            return []
        taken = [(i, bytearray(self.value(i))) for i, s in self.state.items() if s == "distilled"][:n]
        self.given_out += [k for _, k in taken]
        return taken

    def unacknowledged(self, recipient: str) -> int:
        return self.count("delivered") if recipient == "kms" else 0

    def revoke(self, ids: Sequence[UUID], why: str = "") -> list[UUID]:
        for i in ids:
            self.state[i] = "revoked"
        self.why += [why] * bool(ids)
        return list(ids)

    def mark_delivered(self, ids: Sequence[UUID], batch: UUID | None = None) -> None:
        if self.die_before_mark:
            raise KeyboardInterrupt
        for i in ids:
            if self.state[i] == "distilled":
                self.state[i] = "delivered"

    def mark_acknowledged(self, ids: Sequence[UUID]) -> None:
        for i in ids:
            self.state[i] = "acknowledged"
        self.tell("key.acknowledged", len(ids))

    def count(self, state: str) -> int:
        return list(self.state.values()).count(state)


def facts(_ids: Sequence[UUID]) -> BatchFacts:
    origin = Provenance(round=1, protocol="bb84", eps_sec=1e-9, qber=0.01)
    return BatchFacts(START, START + timedelta(days=1), START + timedelta(days=2), (origin,))


class Bench:
    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.keys = Keys()
        self.log = Log()
        self.randomness = SeededRandomness(1)
        self.outbox = Outbox(tmp_path / "outbox.sqlite")
        self.delivery = self.start()
        self.receiver = Receiver(tmp_path / "kms", KMS, {"alice": SENDER.key.public}, HandClock())

    def start(self) -> KeyDelivery:
        made = KeyDelivery(
            store=self.keys,
            outbox=self.outbox,
            sender=SENDER,
            recipients={"kms": KMS.public, "other": OTHER.public},
            link_id="link-1",
            epoch=EPOCH,
            randomness=self.randomness,
            describe=facts,
            audit=self.log,
            batch_keys=4,
        )
        made.recover()
        return made

    def sent(self) -> list[bytes]:
        return [row.payload for row in self.outbox.pending()]

    def close(self) -> None:
        self.outbox.close()
        self.receiver.close()


@pytest.fixture
def bench(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = Bench(tmp_path)
    yield made
    made.close()


def test_keys_reach_the_receiver_and_the_ciphertext_goes_on_its_word(bench: Bench) -> None:
    bench.keys.distil(6)
    assert bench.delivery.deliver() == 6
    assert bench.keys.count("delivered") == 6
    assert [len(Envelope.from_bytes(p).header.key_IDs) for p in bench.sent()] == [4, 2]
    assert all(not any(k) for k in bench.keys.given_out)  # wiped
    for payload in bench.sent():
        bench.delivery.on_key_ack("kms", bench.receiver.process(payload))
    assert bench.keys.count("acknowledged") == 6
    assert bench.outbox.counts() == {}
    assert bench.delivery.outstanding() == 0
    assert bench.log.names == []
    assert len(bench.receiver.digests()) == 6


def test_sequence_numbers_go_on_after_a_restart(bench: Bench) -> None:
    bench.keys.distil(1)
    bench.delivery.deliver("kms")
    again = bench.start()
    bench.keys.distil(1)
    again.deliver("kms")
    assert [Envelope.from_bytes(p).header.seq for p in bench.sent()] == [1, 2]


def test_a_crash_before_the_mark_sends_no_key_twice(bench: Bench) -> None:
    bench.keys.distil(2)
    bench.keys.die_before_mark = True
    with pytest.raises(KeyboardInterrupt):
        bench.delivery.deliver()
    assert bench.keys.count("distilled") == 2
    bench.keys.die_before_mark = False
    assert bench.start().deliver() == 0
    assert bench.keys.count("delivered") == 2
    assert len(bench.sent()) == 1


def test_the_receiver_s_window_is_never_outrun(bench: Bench) -> None:
    bench.keys.distil(4 * (delivery.WINDOW + 6))
    assert bench.delivery.deliver() == 4 * delivery.WINDOW
    payloads = bench.sent()
    for payload in payloads[1:]:
        bench.delivery.on_key_ack("kms", bench.receiver.process(payload))
    assert bench.delivery.deliver() == 0  # the oldest one still has to fit into the window
    bench.delivery.on_key_ack("kms", bench.receiver.process(payloads[0]))
    assert bench.delivery.deliver() == 4 * 6


def test_an_acknowledgement_that_comes_twice_changes_nothing(bench: Bench) -> None:
    bench.keys.distil(1)
    bench.delivery.deliver()
    ack = bench.receiver.process(bench.sent()[0])
    bench.delivery.on_key_ack("kms", ack)
    bench.delivery.on_key_ack("kms", ack)
    assert bench.keys.count("acknowledged") == 1
    assert bench.log.names == []


def signed(body: KeyAckBody, by: Recipient = KMS) -> bytes:
    raw = body.model_dump_json()
    signature = base64.b64encode(by.signing.sign(raw.encode(), KEY_ACK_CONTEXT)).decode()
    return KeyAck(body=raw, signature=signature).payload()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"recipient": "other"}, "names another recipient"),
        ({"recipient_kid": "0" * 32}, "names another recipient"),
        ({"batch_uuid": str(UUID(int=77))}, "was not sent to this recipient"),
        ({"digest": "0" * 64}, "over other bytes"),
        ({"status": {}}, "does not name the keys"),
    ],
)
def test_an_acknowledgement_for_something_else_is_not_believed(
    bench: Bench, change: dict[str, object], why: str
) -> None:
    bench.keys.distil(1)
    bench.delivery.deliver()
    body = KeyAckBody.model_validate_json(KeyAck.model_validate_json(bench.receiver.process(bench.sent()[0])).body)
    bench.delivery.on_key_ack("kms", signed(body.model_copy(update=change)))
    assert bench.log.names == ["key.ack.refused"]
    assert why in str(bench.log.entries[-1][1])
    assert len(bench.sent()) == 1


def test_an_acknowledgement_that_is_not_the_recipient_s_is_not_believed(bench: Bench) -> None:
    bench.keys.distil(1)
    bench.delivery.deliver()
    good = bench.receiver.process(bench.sent()[0])
    body = KeyAckBody.model_validate_json(KeyAck.model_validate_json(good).body)
    for recipient, payload in (
        ("kms", signed(body, OTHER)),
        ("kms", b"{}"),
        ("kms", bytes(300_000)),
        ("nobody", good),
        ("other", good),
    ):
        bench.delivery.on_key_ack(recipient, payload)
    assert bench.log.names == ["key.ack.refused"] * 5
    assert bench.keys.count("acknowledged") == 0


def test_refused_keys_are_given_up_and_told(bench: Bench) -> None:
    bench.keys.distil(2)
    bench.delivery.deliver()
    bench.receiver.clock = HandClock(t=2 * 86_400)
    bench.delivery.on_key_ack("kms", bench.receiver.process(bench.sent()[0]))
    assert bench.keys.count("revoked") == 2
    assert bench.keys.why == ["refused by kms: expired"]
    assert bench.outbox.counts() == {}
    assert bench.log.entries[-1] == ("key.refused", {"recipient": "kms", "keys": 2, "why": "expired"})


def test_depth_labels_and_size_of_a_batch_are_the_recipient_s(bench: Bench) -> None:
    bench.delivery.terms = {"kms": Terms(batch_keys=3, depth=5, labels={"tenant": "north"})}
    bench.keys.distil(9)
    assert bench.delivery.deliver() == 5
    headers = [Envelope.from_bytes(p).header for p in bench.sent()]
    assert [(len(h.key_IDs), h.labels) for h in headers] == [(3, {"tenant": "north"}), (2, {"tenant": "north"})]
    bench.delivery.on_key_ack("kms", bench.receiver.process(bench.sent()[0]))
    assert bench.delivery.deliver() == 3


def test_a_batch_of_keys_that_are_given_up_is_destroyed_and_frees_the_window(bench: Bench) -> None:
    bench.keys.distil(4 * delivery.WINDOW + 4)
    bench.delivery.deliver()
    assert bench.delivery.deliver() == 0
    first = Envelope.from_bytes(bench.sent()[0]).header.ids
    assert bench.delivery.withdraw(lambda i: i in first[:3]) == 0
    late = bench.receiver.process(bench.sent()[0])
    assert bench.delivery.withdraw(lambda i: i in first) == 1
    assert len(bench.sent()) == delivery.WINDOW - 1
    assert bench.delivery.deliver() == 4
    bench.delivery.on_key_ack("kms", late)
    assert bench.keys.count("acknowledged") == 0
    assert bench.delivery.withdraw_all() == delivery.WINDOW
    assert bench.sent() == []


def test_nothing_leaves_before_it_is_released(bench: Bench) -> None:
    rows: list[int] = []
    bench.delivery.release = rows.append
    bench.keys.distil(1)
    bench.delivery.deliver()
    assert bench.sent() == []
    assert bench.outbox.counts() == {"key_held": 1}
    bench.outbox.renew()
    assert bench.sent() == []
    assert bench.outbox.release(rows) == 1
    assert len(bench.sent()) == 1


def test_an_unknown_recipient_is_an_error(bench: Bench) -> None:
    with pytest.raises(LookupError, match="nobody"):
        bench.delivery.deliver("nobody")
