"""Pairs of recipients between two engines: dealt alike, of several sizes, and nothing where the sites differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from qmodd.keys.allocation import Pair as Recipients
from qmodd.keys.allocation import difference
from qmodd.keys.protocol import HandoverMessage, KeysAt
from qmodd.keys.protocol import Recipients as Told
from tests.keys.engine.playing import blocks, play
from tests.keys.engine.world import SETTINGS, Pair, until

TWO = (Recipients("north", 3, 128), Recipients("south", 1, 256))


def dealt(module: Any) -> dict[str, dict[Any, bytes]]:
    return {
        name: {i: bytes(k) for i, k in module.store.take_for_delivery(name, 100_000)} for name in ("north", "south")
    }


def test_keys_of_two_pairs_are_the_same_at_both_sites(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await blocks(2)(pair)
        a, b = dealt(pair.a), dealt(pair.b)
        assert a == b
        assert {len(k) for k in a["north"].values()} == {16}
        assert {len(k) for k in a["south"].values()} == {32}
        for record in pair.a.records:
            assert record.pairs == ((3, 128), (1, 256))
            assert record.recipients == ("north", "south")
            assert record.replenish_bits + record.secret_bits + record.dropped_bits == record.length_bits
            assert record.dropped_bits < 256
            assert record.shared() == next(r for r in pair.b.records if r.uuid == record.uuid).shared()
        assert len(a["north"]) / len(a["south"]) > 2.8
        assert pair.a.store.audit() is None

    play(ram_path, script, replace(SETTINGS, pairs=TWO))


def test_sites_that_deal_differently_make_no_keys_and_say_why(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        pair.b.desk.settings = replace(pair.b.desk.settings, pairs=(TWO[0], Recipients("south", 2, 256)))
        pair.bob.drop_blocks("another configuration")
        why = "recipient pair 2 (south at this site): share 1 here, 2 at the far module"
        await until(lambda: bool(pair.a.said("recipients.differ") and pair.b.said("recipients.differ")))
        assert pair.a.said("recipients.differ")[-1]["why"] == why
        assert "share 2 here, 1 at the far module" in pair.b.said("recipients.differ")[-1]["why"]
        assert not pair.a.records
        pair.b.desk.settings = replace(pair.b.desk.settings, pairs=TWO)
        pair.bob.drop_blocks("the same configuration")
        await blocks(1)(pair)

    play(ram_path, script, replace(SETTINGS, pairs=TWO))


class Listener:
    """Takes the hand-over's place in an engine."""

    def __init__(self, say: KeysAt) -> None:
        self._say = say
        self.heard: list[HandoverMessage] = []

    async def session(self, send: Any) -> None:
        await send(self._say)

    def hear(self, message: HandoverMessage) -> None:
        self.heard.append(message)


def test_words_about_keys_pass_through_the_session(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        a, b = Listener(KeysAt(bytes(16), 1, (0, 3))), Listener(KeysAt(bytes(16), 2, ()))
        pair.alice.handover, pair.bob.handover = a, b
        pair.bob.drop_blocks("once more")
        await until(lambda: bool(a.heard and b.heard))
        assert a.heard == [KeysAt(bytes(16), 2, ())]
        assert b.heard == [KeysAt(bytes(16), 1, (0, 3))]

    play(ram_path, script)


def test_nothing_of_a_recipient_s_name_is_compared() -> None:
    told = Told(("kms-b",), (1,), (128,))
    assert difference([Recipients("kms-a", 1, 128)], told.shares, told.key_bits) is None
