"""`qmodctl keys`: counts by recipient, what waits, and the story of a key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qmodd import ctl
from qmodd.ctl import Ctl
from qmodd.identity import ClientFiles
from qmodd.messages import Reply, ReplyError
from tests.uplink_fakes import CLIENT, MODULE, certificate

ID = "00000000-0000-4000-8000-000000000000"
COUNTS: dict[str, Any] = {
    "created": 12_000,
    "states": {"distilled": 500, "delivered": 64, "acknowledged": 11_436, "revoked": 0},
    "recipients": {
        "kms-1": {
            "distilled": 400,
            "acknowledged": 9000,
            "usable": 8990,
            "revoking": 0,
            "share": 0.75,
            "key_bits": 256,
        },
        "kms-2": {
            "distilled": 100,
            "acknowledged": 2436,
            "usable": 2436,
            "revoking": 3,
            "share": 0.25,
            "key_bits": 128,
        },
    },
    "batches_open": 1,
    "notices_open": 0,
    "waiting_for_far_site": 10,
    "revoking": 3,
    "account": "in order",
}
STORY = {
    "key_id": ID,
    "state": "usable",
    "recipient": "kms-1",
    "batch": "",
    "times": {"created": "2026-01-01T00:00:00+00:00", "delivered": None},
    "block": {"uuid": "b1", "qber_z": 0.0057, "n_z": [1, 2]},
}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    given: dict[str, Any] = {"keys": COUNTS, "provenance": STORY}

    async def do(_ctl: Ctl, client: Any, module: str, command: str, arguments: dict[str, Any]) -> Reply:
        assert module == MODULE
        given.setdefault("asked", []).append(arguments)
        found = given[command]
        return (
            Reply(id=ID, ok=False, error=found)
            if isinstance(found, ReplyError)
            else Reply(id=ID, ok=True, result=found)
        )

    monkeypatch.setattr(Ctl, "do", do)
    return given


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return ["keys", "--identity", str(ClientFiles(CLIENT, certificate()).save(tmp_path / "ann")), MODULE]


def test_counts(answers: dict[str, Any], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(words) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert lines[1] == ["kms-1", "400", "9,000", "8,990", "0", "0.75", "256"]
    assert "12,000 created: 500 distilled, 64 delivered, 11,436 acknowledged" in out
    assert "10 keys acknowledged here that the far site's recipient has not got yet" in out
    assert "notices" not in out
    assert ctl.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == COUNTS


def test_an_account_that_does_not_add_up(
    answers: dict[str, Any], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    answers["keys"] = {**COUNTS, "account": "12000 created, 11999 in all states"}
    assert ctl.main(words) == 1
    assert "does not add up: 12000 created, 11999 in all states" in capsys.readouterr().out


def test_the_story_of_a_key(answers: dict[str, Any], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main([*words, "--provenance", ID.upper()]) == 0
    out = capsys.readouterr().out
    assert answers["asked"] == [{"key_id": ID}]
    for text in ("usable", "2026-01-01", "not yet", "block qber z", "0.0057", "1, 2"):
        assert text in out
    assert "batch" not in out
    answers["provenance"] = ReplyError(code="unknown_key", message="no such key")
    assert ctl.main([*words, "--provenance", ID]) == 1
    assert ctl.main([*words, "--provenance", "abc"]) == 2
    assert "'abc': not a key id" in capsys.readouterr().err
