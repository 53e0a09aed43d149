"""Photonic modules in the key engine: both serials in every record, and nothing goes on when one is replaced."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from qmodd.keys.records import BlockRecord
from tests.keys.engine.playing import play
from tests.keys.engine.world import Pair, until


async def records(pair: Pair, count: int) -> None:
    await until(lambda: len(pair.a.records) >= count and len(pair.b.records) >= count, 120)


@pytest.mark.parametrize("side", ["alice", "bob"])
def test_no_block_of_two_modules_of_one_side(ram_path: Path, side: str) -> None:
    heard: list[str] = []

    async def script(pair: Pair) -> None:
        pair.alice.set_module("QA1")
        pair.bob.set_module("QB1")
        changed, other = (pair.alice, pair.bob) if side == "alice" else (pair.bob, pair.alice)
        other.on_peer_module = heard.append
        await records(pair, 1)
        await until(lambda: 0.2 < pair.bob.status.block_progress < 0.8, 60)
        run = pair.alice.status.run
        changed.set_module("QX2")
        await until(lambda: pair.alice.status.run > run, 60)
        before = len(pair.a.records)
        await records(pair, before + 1)

    pair = play(ram_path, script)
    old, new = ("QA1", "QB1"), ("QX2", "QB1") if side == "alice" else ("QA1", "QX2")
    made = [(r.alice_module, r.bob_module) for r in pair.a.records]
    assert set(made) == {old, new}
    assert made == sorted(made, key=[old, new].index), "none of the old pair after one of the new"
    assert [r.shared() for r in pair.a.records] == [r.shared() for r in pair.b.records]
    assert heard[-1] == "QX2"


def test_a_block_in_distillation_is_dropped_on_both_sides(ram_path: Path) -> None:
    """Its data was good, but nobody can say of the last of it how long the module was still whole."""

    closed: list[str] = []

    async def script(pair: Pair) -> None:
        pair.alice.set_module("QA1")
        pair.bob.set_module("QB1")
        told = pair.alice.desk.on_event

        def hear(name: str, fields: dict[str, Any]) -> None:
            told(name, fields)
            if name == "block.closed" and not closed:
                closed.append(name)
                pair.alice.drop_blocks("no part of module QA1 answers")

        pair.alice.desk.on_event = hear
        await until(lambda: pair.alice.status.blocks_aborted > 0 and pair.bob.status.blocks_aborted > 0, 60)
        assert not pair.a.records
        assert not pair.b.records
        await records(pair, 1)

    pair = play(ram_path, script)
    assert pair.alice.status.last_abort == "no part of module QA1 answers"


def test_the_first_module_drops_nothing(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await until(lambda: pair.bob.status.block_progress > 0.2, 60)
        run = pair.alice.status.run
        pair.alice.set_module("QA1")
        pair.alice.set_module("QA1")
        await asyncio.sleep(1.0)
        assert pair.alice.status.run == run

    play(ram_path, script)


def test_records_of_an_older_version_say_no_module(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await records(pair, 1)

    record = play(ram_path, script).a.records[0]
    text = record.to_json().replace(', "bob_module": ""', "").replace('"alice_module": "", ', "")
    assert "module" not in text
    assert BlockRecord.from_json(text) == record
