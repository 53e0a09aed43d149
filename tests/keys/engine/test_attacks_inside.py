"""A far end that talks nonsense under the session's own keys: an engine may end the session, never its own life."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints
from uuid import UUID

import pytest

from qmodd.channel import ChannelDown
from qmodd.keys import protocol
from qmodd.keys.authentication import SessionBroken
from qmodd.keys.fields import InDoubt, Pairs
from qmodd.keys.protocol import Commit, Message, Plan, Welcome
from sim.loop import run_simulated
from tests.keys.engine.world import Pair, give, idle, make_pair, settled, start, stopped, until

TYPES = sorted(protocol._BY_TYPE.values(), key=lambda t: t.TYPE)


def _whole(rng: random.Random) -> int:
    return rng.choice((0, 0, 1, 1, 2, 3, 64, 6000, 2**31, 2**32, 2**62, 2**63 - 1))


def _number(rng: random.Random) -> float:
    return rng.choice((0.0, 0.01, 0.03, 0.5, 1.0, 800.0, 8000.0, -1.0, 1e-308, 1e300, -1e300, 2.0**70))


def _octets(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 8, 16, 16, 16, 17, 104, 2000)))


def _some(rng: random.Random, item: Any) -> tuple[Any, ...]:
    return tuple(item(rng) for _ in range(rng.choice((0, 1, 2, 2, 2, 3))))


TEXTS = ("", "wiesemann2024", "x" * 512, "\0\n\x1b[2J")
OF_KIND: dict[Any, Any] = {
    int: _whole,
    float: _number,
    str: lambda rng: rng.choice(TEXTS),
    bytes: _octets,
    bool: lambda rng: rng.random() < 0.5,
    tuple[int, ...]: lambda rng: _some(rng, _whole),
    tuple[float, ...]: lambda rng: _some(rng, _number),
    tuple[bytes, ...]: lambda rng: _some(rng, _octets),
    tuple[str, ...]: lambda rng: _some(rng, lambda r: r.choice(TEXTS)),
    Pairs: lambda rng: _some(rng, lambda r: (_number(r), _number(r))),
    InDoubt: lambda rng: _some(rng, lambda r: (_octets(r), _whole(r))),
}


def nonsense(rng: random.Random, run: int) -> Message:
    """Any message with any values; what is about a run or a block is often about the one in work."""
    cls = rng.choice(TYPES)
    hints = get_type_hints(cls)
    values = {f.name: OF_KIND[hints[f.name]](rng) for f in fields(cls)}  # type: ignore[arg-type]
    for name, here in (("run", run), ("block", 0)):
        if name in values and rng.random() < 0.8:
            values[name] = here
    return cls(**values)


@pytest.mark.parametrize("seed", range(4))
def test_nonsense_of_the_far_end_ends_no_engine(ram_path: Path, seed: int) -> None:
    async def main(loop: Any) -> None:
        rng = random.Random(seed)
        a, b = make_pair(ram_path)
        pair, tasks = start(a, b, loop)
        await pair.alice.start_keying()
        await pair.bob.start_keying()
        for _ in range(100):
            speaker = rng.choice((pair.alice, pair.bob))
            message = nonsense(rng, pair.alice.status.run)
            try:
                await speaker.session.send(message)
            except (ChannelDown, SessionBroken):
                await until(lambda speaker=speaker: speaker._welcome is not None)
            await asyncio.sleep(rng.choice((0.0, 0.01, 0.5)))
            for task in tasks:
                assert not task.done(), (message, task.exception())
        ours, theirs = a.keys(), b.keys()
        assert all(ours[i] == theirs[i] for i in ours.keys() & theirs.keys())
        await stopped(*tasks)
        a.shut(), b.shut()

    run_simulated(main)


def says_instead(engine: Any, change: Callable[[Message], Message]) -> list[Message]:
    """Every message of an engine goes through `change`; what came out."""
    real, out = engine.session.send, []

    async def send(message: Any) -> None:
        said = protocol.decode(message) if isinstance(message, bytes) else message
        out.append(change(said))
        await real(out[-1])

    engine.session.send = send
    return out


UNKNOWN = UUID(int=7).bytes


@pytest.mark.parametrize("round_", [0, 5, 409, 2**40, 2**63 - 1])
def test_doubts_about_rounds_that_never_were(ram_path: Path, round_: int) -> None:
    """A pool or a store that was put back: no verdict can be given, and Alice lives to say so."""

    async def main(loop: Any) -> None:
        a, b = make_pair(ram_path)
        pair, tasks = start(a, b, loop)
        doubts = ((UNKNOWN, round_),)
        says_instead(pair.bob, lambda m: replace(m, in_doubt=doubts) if isinstance(m, Welcome) else m)
        await until(lambda: pair.alice._welcome is not None)
        await asyncio.sleep(3)
        assert not any(t.done() for t in tasks)
        await stopped(*tasks)
        a.shut(), b.shut()

    run_simulated(main)


def test_no_token_of_a_committed_round_for_another_block(ram_path: Path) -> None:
    """Else whoever asks with a block that is unknown gets the word that aborts the one that Bob has in doubt."""

    async def main(loop: Any) -> None:
        a, b = make_pair(ram_path)
        pair, tasks = start(a, b, loop)
        await settled(pair)
        give(pair, 1)
        await idle(pair)
        assert [r.round for r in a.records] == [0]
        doubts = ((UNKNOWN, 0),)
        says_instead(pair.bob, lambda m: replace(m, in_doubt=doubts) if isinstance(m, Welcome) else m)
        said = says_instead(pair.alice, lambda m: m)
        pair.wire.cut()
        await asyncio.sleep(0.1)
        pair.wire.mend()
        await asyncio.sleep(3)
        assert not [m for m in said if isinstance(m, Commit)]
        assert a.said("block.unknown")
        assert not any(t.done() for t in tasks)
        await stopped(*tasks)
        a.shut(), b.shut()

    run_simulated(main)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sync_slot": 2**62, "key_slot": 2**63 - 1},
        {"slot_now": 0, "sync_slot": 1, "key_slot": 2},
        {"period_ps": 1e300},
        {"period_ps": 1e-300, "bin_ps": 1e-301},
        {"period_ps": 1e300, "sync_slot": 2**62, "key_slot": 2**63 - 1},
        {"mu": (), "p_mu": ()},
        {"mu": ((-1.0, 1e300),), "p_mu": (5.0, -4.0, 2.0)},
        {"pilot_every": 2**63 - 1},
        {"p_x": 1e300},
    ],
    ids=str,
)
def test_plans_that_cannot_be(ram_path: Path, wrong: dict[str, Any]) -> None:
    async def main(loop: Any) -> None:
        a, b = make_pair(ram_path)
        pair: Pair
        pair, tasks = start(a, b, loop)
        said = says_instead(pair.alice, lambda m: replace(m, **wrong) if isinstance(m, Plan) else m)
        await pair.alice.start_keying()
        await pair.bob.start_keying()
        await until(lambda: any(isinstance(m, Plan) for m in said))
        await asyncio.sleep(4)
        for task in tasks:
            assert not task.done(), task.exception()
        await stopped(*tasks)
        a.shut(), b.shut()

    run_simulated(main)
