"""Short campaigns of the adversary, and that it sees what it is there to see."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.keys_attacks import rows
from qmodd.keys import authentication, bob_distil
from qmodd.keys.authentication import BlockAuthentication, FrameFilter
from tests.keys.engine.adversary import Campaign, Wrong, campaign


@pytest.mark.parametrize("seed", [1001, 1002])
def test_no_block_is_resolved_differently(seed: int) -> None:
    score = campaign(seed, 60)
    assert score.blocks == 60
    assert score.committed > 10
    assert score.kills > 5
    assert score.tampered > 0
    assert score.inside > 2


def test_crossing_hellos_end_in_one_session() -> None:
    """Seed 2 of old: after a cut, HELLOs played back to both sides were answered for ever."""
    assert campaign(2, 40).blocks == 40


def test_the_same_seed_is_the_same_campaign() -> None:
    assert campaign(7, 25) == campaign(7, 25)


def test_a_filter_that_believes_everything_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def gullible(self: FrameFilter, frame: bytes) -> bytes | None:
        return frame[9:-16] if len(frame) > 25 and frame[:1] == b"S" else None

    monkeypatch.setattr(FrameFilter, "open", gullible)
    monkeypatch.setattr(Campaign, "ATTACKS", ("flip_often", "replay"))
    with pytest.raises(Wrong, match="was not sent"):
        campaign(3, 20)


def test_tags_that_are_not_checked_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication.mac, "one_time_tag_ok", lambda *_: True)
    monkeypatch.setattr(BlockAuthentication, "check", lambda *_: None)
    monkeypatch.setattr(Campaign, "ATTACKS", ("change_inside",))
    with pytest.raises(Wrong, match=r"messages were changed|on one side only|keys differ"):
        campaign(4, 120)


def test_a_verification_that_always_agrees_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bob_distil, "tags_equal", lambda *_: True)
    monkeypatch.setattr(Campaign, "ATTACKS", ("flip_key",))
    with pytest.raises(Wrong, match="keys differ"):
        campaign(5, 60)


def test_rows_say_what_was_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    (good,) = rows(blocks=10, seed=11)
    assert good.ok
    assert good.detail["committed_count"] + good.detail["aborted_count"] == 10

    def broken(*_: Any) -> Any:
        raise Wrong("campaign 1, block 2: the keys differ")

    monkeypatch.setattr("benchmarks.keys_attacks.campaign", broken)
    (bad,) = rows(blocks=10)
    assert not bad.ok
    assert "keys differ" in bad.note
