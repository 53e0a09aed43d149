"""`keys` and `provenance`: what a person may know about keys without seeing one."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from qmodd.app.key_commands import key_handlers
from qmodd.app.wiring import Wiring
from qmodd.command_results import KeyCounts, Provenance
from qmodd.config import RecipientSection
from qmodd.requests import Refusal
from tests.keys.sites import Two


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    made = Two(tmp_path)
    yield made
    made.close()


def wiring(two: Two) -> Wiring:
    recipient = RecipientSection(name="kms", public=Path("kms.pub"), share=3, depth=500)
    config = types.SimpleNamespace(keys=types.SimpleNamespace(key_bits=256), recipient=[recipient])
    return cast(Wiring, types.SimpleNamespace(config=config, handover=two.a.handover))


def ask(w: Wiring, command: str, **arguments: Any) -> Mapping[str, Any]:
    answered = asyncio.run(key_handlers(w)[command](arguments))  # type: ignore[arg-type]
    assert answered is not None
    return answered


def test_counts_by_state_and_recipient(two: Two) -> None:
    two.block(5)
    two.a.work()
    told = ask(wiring(two), "keys")
    KeyCounts.model_validate(told)
    assert told["created"] == 5
    assert told["batches_open"] == 2
    assert told["recipients"]["kms"] == {
        **dict.fromkeys(("distilled", "acknowledged", "expired", "revoked", "usable", "revoking"), 0),
        **{"delivered": 5, "share": 3, "key_bits": 256, "depth": 500},
    }
    two.settle()
    two.a.handover._revoke(tuple(two.a.store.key_ids()[:1]), "test")
    told = ask(wiring(two), "keys")
    assert told["recipients"]["kms"]["usable"] == 4
    assert told["recipients"]["kms"]["revoking"] == told["revoking"] == 1
    assert told["account"] == "in order"
    with two.a.database.transaction() as db:
        db.execute("UPDATE totals SET n = n + 1 WHERE state = 'created'")
    assert ask(wiring(two), "keys")["account"] == "6 keys created but 5 accounted for"
    with two.a.database.transaction() as db:
        db.execute("UPDATE totals SET n = n - 1 WHERE state = 'created'")


def test_where_a_key_comes_from(two: Two) -> None:
    block = two.block(2)
    two.settle()
    key = two.a.store.key_ids()[1]
    told = ask(wiring(two), "provenance", key_id=str(key))
    Provenance.model_validate(told)
    assert told["block"]["uuid"] == str(block)
    assert (told["number"], told["recipient"], told["state"]) == (1, "kms", "acknowledged")
    assert list(told["times"]) == ["created", "delivered", "acknowledged", "usable", "ended"]
    assert told["times"]["usable"].startswith("2026-01-01T")
    assert told["times"]["ended"] is None
    two.a.store.purge_ids([key])
    with pytest.raises(Refusal, match="never made by this module, or it is purged"):
        ask(wiring(two), "provenance", key_id=str(key))


def test_refusals(two: Two) -> None:
    with pytest.raises(Refusal, match="a UUID is needed"):
        ask(wiring(two), "provenance", key_id="x")
    with pytest.raises(Refusal, match="allowed: key_id"):
        ask(wiring(two), "provenance", name="x")
    with pytest.raises(Refusal, match="allowed: none"):
        ask(wiring(two), "keys", all=True)
    nobody = cast(Wiring, types.SimpleNamespace(handover=None))
    with pytest.raises(Refusal, match="hands no keys over"):
        ask(nobody, "keys")
