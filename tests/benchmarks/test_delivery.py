"""The delivery benchmark: its judge finds every fault, and a small campaign with real processes passes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from uuid import UUID

import pytest

from benchmarks.delivery import Verdict, campaign, judge, result, told
from benchmarks.delivery_core import REPLENISH_BYTES, key_values, secret_of
from benchmarks.measure import silent
from qmodd.keys.records import key_id

BLOCK = UUID(int=1)
IDS = [str(key_id(BLOCK, n)) for n in range(4)]
GOOD = {i: hashlib.sha256(v).hexdigest() for i, v in zip(IDS, key_values(BLOCK, 4), strict=True)}
ALL_USABLE = dict.fromkeys(IDS, "usable")


def without(found: dict[str, str], *ids: str) -> dict[str, str]:
    return {i: v for i, v in found.items() if i not in ids}


def test_both_sides_derive_the_same_bits_and_cut_them_alike() -> None:
    secret = secret_of(BLOCK, 2)
    assert b"".join(key_values(BLOCK, 2)) == secret[REPLENISH_BYTES:]
    assert secret_of(UUID(int=2), 2) != secret


def test_what_the_judge_says() -> None:
    last = IDS[3]
    gone = {**ALL_USABLE, last: "revoked"}
    assert judge({BLOCK: 4}, (GOOD, GOOD), (ALL_USABLE, ALL_USABLE), (0, 0)) == Verdict(usable=4)
    good = without(GOOD, last)
    assert judge({BLOCK: 4}, (good, good), (gone, gone), (1, 1)) == Verdict(usable=3, revoked=1)
    # Never sent, so not known to the recipients: revoked everywhere all the same.
    never = without(ALL_USABLE, last)
    assert judge({BLOCK: 4}, (good, good), (never, never), (1, 1)) == Verdict(usable=3, revoked=1)


def test_what_the_judge_finds() -> None:
    last = IDS[3]
    good, gone = without(GOOD, last), {**ALL_USABLE, last: "revoked"}
    pending = {**ALL_USABLE, last: "pending"}
    assert judge({BLOCK: 4}, (good, good), (pending, gone), (1, 1)).lost == 1
    assert judge({BLOCK: 4}, (GOOD, good), (ALL_USABLE, gone), (0, 0)).one_site == 1
    assert judge({BLOCK: 4}, (good, good), (gone, gone), (1, 0)).unsaid == 1
    other = {**GOOD, last: hashlib.sha256(b"other").hexdigest()}
    assert judge({BLOCK: 4}, (GOOD, other), (ALL_USABLE, ALL_USABLE), (0, 0)).mismatched == 1
    # Equal at both sites and still not what the block held.
    assert judge({BLOCK: 4}, (other, other), (ALL_USABLE, ALL_USABLE), (0, 0)).mismatched == 1
    assert judge({BLOCK: 4}, ({**GOOD, "x": "y"}, GOOD), (ALL_USABLE, ALL_USABLE), (0, 0)).duplicated == 1
    twice = {**GOOD, last: GOOD[IDS[0]]}
    found = judge({BLOCK: 4}, (twice, GOOD), (ALL_USABLE, ALL_USABLE), (0, 0))
    assert (found.duplicated, found.mismatched, found.wrong) == (1, 1, 2)


def test_an_entry_that_is_told_twice_counts_once(tmp_path: Path) -> None:
    lines = [("key.revoked", 1, 3), ("key.revoked", 1, 3), ("key.usable", 2, 9), ("key.revoked", 4, 1)]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps({"event": e, "entry": n, "keys": k}) + "\n" for e, n, k in lines))
    assert told(path, "key.revoked") == 4


@pytest.mark.long
@pytest.mark.processes
def test_a_small_campaign_loses_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    # A Unix socket's path must be short.
    verdict, kills, killing_s, settling_s = campaign(tmp_path_factory.mktemp("d"), 200, 8, 7, silent, 50)
    assert verdict.wrong == 0
    assert verdict.usable + verdict.revoked == 200
    assert verdict.usable > 100
    assert kills.total() == 8
    made = result(verdict, kills, killing_s, settling_s, 7)
    assert made.ok
    assert made.detail["kills_count"] == 8.0
