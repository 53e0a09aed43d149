"""Lengths agreed before a block: the first run only measures, the next ones pay the agreed length or nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qmodd.keys.estimation import FixedLength, KeyLength, Proof
from qmodd.keys.planning import thresholds
from qmodd.keys.plans import agreement, why_impossible
from qmodd.keys.settings import LengthPolicy
from tests.keys.engine.playing import blocks, play
from tests.keys.engine.world import SETTINGS, Pair, same_keys, small_plan, until

FIXED = replace(SETTINGS, length=LengthPolicy.FIXED, fixed_margin=0.1)
SEEN = KeyLength(17_000, 100.0, 30_000.0, 31_000.0, 600.0, 0.03, 4200, (0.5, 0.2))


def test_agreed_length_or_nothing(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await blocks(3)(pair)
        assert same_keys(pair.a, pair.b) > 50

    pair = play(ram_path, script, FIXED)
    first = pair.a.said("run.ended")[0]
    assert "a run with a fixed length begins" in str(first["why"])
    refused = [f["why"] for f in pair.a.said("block.aborted") if f["run"] == 1]
    assert refused
    assert all("only tells what they may be" in str(why) for why in refused)
    of_run: dict[int, set[int]] = {}
    for record in pair.a.records:
        of_run.setdefault(record.run, set()).add(record.length_bits)
        assert "fixed before the block" in record.theorem
    assert 1 not in of_run, "the first run has nothing agreed"
    assert all(len(lengths) == 1 for lengths in of_run.values())


def test_a_side_that_wants_variable_length_takes_no_fixed_one(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        pair.bob.settings = replace(pair.bob.settings, length=LengthPolicy.VARIABLE)
        await until(lambda: any("variable at Bob" in str(f["why"]) for f in pair.b.said("run.ended")), 60)

    assert not play(ram_path, script, FIXED).b.records


def test_thresholds_lie_on_the_safe_side() -> None:
    s_z0, s_z1, phi_z, leak = thresholds(FIXED, SEEN)
    assert (s_z0, s_z1, phi_z, leak) == pytest.approx((90.0, 27_000.0, 0.033, 4620))
    assert thresholds(FIXED, None) == ()
    assert thresholds(SETTINGS, SEEN) == ()
    assert thresholds(FIXED, replace(SEEN, s_z1=4000.0)) == (), "such a block pays for no key"
    assert thresholds(FIXED, replace(SEEN, s_z1=0.0)) == ()


def test_agreement_of_a_plan() -> None:
    plan = replace(small_plan(1), sync_slot=10_000_000, key_slot=50_000_000, agreed=thresholds(FIXED, SEEN))
    assert agreement(plan) == FixedLength(Proof.WIESEMANN2024, 90.0, 27_000.0, 0.033, 4620, plan.eps_sec, plan.eps_cor)
    assert why_impossible(plan) is None
    for wrong in ((1.0,), (90.0, -1.0, 0.03, 1.0), (90.0, 2.7e4, 0.6, 1.0), (1.0, 1.0, 0.1, float("inf"))):
        assert why_impossible(replace(plan, agreed=wrong)) == "the plan's thresholds of a fixed length are none"
