"""One block at a time: help, every way to fail, and a far end that does not keep to the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qmodd.keys import protocol
from qmodd.keys.estimation import KeyLength
from qmodd.keys.kernels import WorkerDied
from qmodd.keys.material import Held
from qmodd.keys.pool import PAD_BYTES, SECRET_BYTES
from qmodd.keys.reconciliation import Plan
from sim.loop import run_simulated
from tests.keys.engine.world import (
    Pair,
    give,
    half_of_the_bits,
    idle,
    make_pair,
    raw_blocks,
    same_keys,
    settled,
    small_plan,
    start,
    stopped,
    until,
)

Script = Callable[[Pair], Awaitable[None]]


def play(path: Path, script: Script, rule: Any = half_of_the_bits, same: bool = True) -> None:
    async def main(loop: Any) -> None:
        a, b = make_pair(path)
        pair, tasks = start(a, b, loop, rule)
        await settled(pair)
        await script(pair)
        assert not any(t.done() for t in tasks), [t.exception() for t in tasks if t.done()]
        if same:
            same_keys(a, b)
        await stopped(*tasks)
        a.shut(), b.shut()

    run_simulated(main)


def aborted(pair: Pair) -> tuple[str, str]:
    return tuple(m.said("block.aborted")[-1]["why"] if m.said("block.aborted") else "" for m in (pair.a, pair.b))  # type: ignore[return-value]


async def goes_on(pair: Pair) -> None:
    n = len(pair.b.records)
    give(pair, 50)
    await idle(pair)
    assert len(pair.a.records) == len(pair.b.records) == n + 1


def test_frames_that_fail_are_helped_and_the_help_is_counted(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        pair.alice._distiller.qber = 0.004
        give(pair, 1, errors=0.03, n_z=65_536)
        await idle(pair)
        ours, theirs = pair.a.records[0], pair.b.records[0]
        assert ours.frames_helped == theirs.frames_helped == 1
        assert ours.leak_bits == theirs.leak_bits
        assert ours.qber_z == pytest.approx(0.03, rel=0.1)
        # The next block gets a code for what was found.
        assert pair.alice._distiller.qber == pytest.approx(1.05 * ours.qber_z)
        give(pair, 2, errors=0.03, n_z=65_536)
        await idle(pair)
        assert pair.a.records[1].frames_helped == 0
        assert pair.a.records[1].leak_bits < ours.leak_bits

    play(ram_path, script)


@pytest.mark.parametrize(
    ("index", "why"),
    [(2, "phase 0 by bob"), (0, "phase 0 by alice"), (1, "phase 1 by alice"), (3, "phase 1 by bob")],
)
def test_one_wrong_pad_is_one_block_without_keys(ram_path: Path, index: int, why: str) -> None:
    async def script(pair: Pair) -> None:
        ring = pair.b.directory / "pool.pad"
        good, at = ring.read_bytes(), SECRET_BYTES + index * PAD_BYTES
        ring.write_bytes(good[:at] + bytes(PAD_BYTES) + good[at + PAD_BYTES :])
        give(pair, 1)
        await idle(pair)
        assert any(f"authentication of {why} failed" in w for w in aborted(pair))
        assert all(aborted(pair))
        assert not pair.a.store.key_ids()
        assert not pair.a.journal.in_doubt()
        assert not pair.b.journal.in_doubt()
        await goes_on(pair)

    play(ram_path, script)


def test_a_wrong_token_neither_commits_nor_aborts(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        ring = pair.b.directory / "pool.pad"
        good = ring.read_bytes()
        at = SECRET_BYTES + 4 * PAD_BYTES
        ring.write_bytes(good[:at] + bytes(PAD_BYTES) + good[at + PAD_BYTES :])
        give(pair, 1)
        await until(lambda: bool(pair.b.said("block.verdict_refused")))
        assert pair.b.journal.in_doubt()
        assert not pair.b.store.key_ids()
        ring.write_bytes(good)
        pair.wire.cut()
        await asyncio.sleep(1)
        pair.wire.mend()
        await settled(pair)
        assert pair.b.said("block.settled")[-1]["committed"] is True
        await goes_on(pair)

    play(ram_path, script)


def broken(pair: Pair, name: str, error: Exception) -> None:
    async def fails(*_: Any) -> Any:
        raise error

    setattr(pair.b.desk.kernels, name, fails)


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("name", ["syndromes", "correct", "verification_tag", "amplify"])
def test_a_dead_worker_costs_one_block(ram_path: Path, side: str, name: str) -> None:
    async def script(pair: Pair) -> None:
        kernels: Any = getattr(pair, side).desk.kernels
        real = getattr(kernels, name)

        async def dies(*_: Any) -> Any:
            raise WorkerDied(f"the distillation worker died in {name!r}")

        setattr(kernels, name, dies)
        give(pair, 1)
        await idle(pair)
        met = {("a", "correct"), ("b", "syndromes")}.isdisjoint({(side, name)})
        assert all("worker died" in w for w in aborted(pair)) is met
        setattr(kernels, name, real)
        await goes_on(pair)

    play(ram_path, script)


def test_wrong_bits_fail_verification(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        kernels: Any = pair.b.desk.kernels
        real = kernels.corrected

        async def one_off(held: Held) -> Any:
            result = await real(held)
            kernels._bench._blocks[held.number].z_bits[7] ^= 1
            return result

        kernels.corrected = one_off
        give(pair, 1)
        await idle(pair)
        assert all("verification failed" in w for w in aborted(pair))
        kernels.corrected = real
        await goes_on(pair)

    play(ram_path, script)


def test_sides_that_sifted_differently(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        ours, theirs = raw_blocks(small_plan(1), 0, 6000, 500, 0.01, seed=1)
        pair.alice._queue_closed([ours])
        signal, decoy = theirs.counts.n_z
        counts = replace(theirs.counts, n_z=(signal + 1, decoy - 1))
        pair.bob._queue_closed([replace(theirs, material=replace(theirs.material, counts=counts))])
        await idle(pair)
        assert all("count differently" in w for w in aborted(pair))
        await goes_on(pair)

    play(ram_path, script)


def test_another_transcript_is_another_block(ram_path: Path) -> None:
    """What was said while sifting is authenticated: one forged BASIS behind the filter is found at the first tag."""

    async def script(pair: Pair) -> None:
        ours, theirs = raw_blocks(small_plan(1), 0, 6000, 500, 0.01, seed=1)
        ours.transcript.said[0][0] = b"forged"
        pair.alice._queue_closed([ours])
        pair.bob._queue_closed([theirs])
        await idle(pair)
        assert all("authentication of phase 0" in w for w in aborted(pair))

    play(ram_path, script)


def lengths(**by_errors: int) -> Any:
    def rule(proof: Any, counts: Any, mu: Any, p: Any, eps: float, cor: float, leak: int) -> KeyLength:
        n = by_errors["before"] if sum(counts.m_z) == 0 else by_errors["after"]
        return KeyLength(n, 0, 0, 0, 0, 0, leak, (0.5, 0.1), None if n else "not enough")

    return rule


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (lengths(before=0, after=0), "no key can come of this block: not enough"),
        (lengths(before=9999, after=1300), "1300 secret bits are too few"),
        (lengths(before=9999, after=0), "not enough"),
    ],
)
def test_bounds_that_pay_for_nothing(ram_path: Path, rule: Any, why: str) -> None:
    async def script(pair: Pair) -> None:
        give(pair, 1)
        await idle(pair)
        assert all(why in w for w in aborted(pair))

    play(ram_path, script, rule)


def test_rules_that_fail_or_differ(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        def fails(*_: Any) -> Any:
            raise ValueError("intensities are not ordered")

        pair.a.desk.length_rule = fails
        give(pair, 1)
        await idle(pair)
        assert all("intensities are not ordered" in w for w in aborted(pair))
        pair.a.desk.length_rule = lengths(before=9999, after=2000)
        give(pair, 2)
        await idle(pair)
        assert all("the sides disagree" in w for w in aborted(pair))
        pair.a.desk.length_rule = half_of_the_bits
        pair.b.store.recipients = ("east", "west")
        give(pair, 3)
        await idle(pair)
        assert all("recipients" in w for w in aborted(pair))
        pair.b.store.recipients = ("kms",)
        await goes_on(pair)

    play(ram_path, script)


def test_limits_of_errors_and_of_the_tag(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        give(pair, 1, errors=0.12)
        await idle(pair)
        assert all("QBER_X" in w for w in aborted(pair))
        for m in (pair.a, pair.b):
            m.desk.settings = replace(m.desk.settings, qber_limit=0.03)
        ours, theirs = raw_blocks(small_plan(2), 0, 6000, 500, 0.04, seed=1)
        counts = replace(theirs.counts, m_x=(0, 0))
        pair.alice._queue_closed([ours])
        pair.bob._queue_closed([replace(theirs, material=replace(theirs.material, counts=counts))])
        await idle(pair)
        assert all("QBER_Z" in w for w in aborted(pair))
        plan = replace(small_plan(3), eps_cor=1e-38)
        ours, theirs = raw_blocks(plan, 0, 6000, 500, 0.01, seed=2)
        pair.alice._queue_closed([ours])
        pair.bob._queue_closed([theirs])
        await idle(pair)
        assert all("eps_cor" in w for w in aborted(pair))

    play(ram_path, script)


# --- a far end that holds the session's keys and does not keep to the protocol ---

U = b"u" * 16
TO_ALICE = [
    (protocol.HelpWanted(1, 0, (0,), (3,)), protocol.HelpWanted, "not due"),
    (protocol.HelpWanted(1, 0, (0,), ()), protocol.HelpWanted, "malformed"),
    (protocol.XErrors(1, 0, (9999, 0)), protocol.XErrors, "errors"),
    (protocol.XErrors(1, 0, (1, 2, 3)), protocol.XErrors, "intensities"),
    (protocol.Prepared(1, 0, U), protocol.XErrors, "Prepared came where XErrors was due"),
    (protocol.Prepared(1, 0, U), protocol.Prepared, "another block"),
    (protocol.Auth(1, 0, 1, U), protocol.Auth, "tag of phase 1"),
    (protocol.Result(1, 0, True, (9999, 9999), 1, 1), protocol.Result, "authentication"),
]
TO_BOB = [
    (protocol.BlockClose(1, 0, 999, (1, 1), (1, 1)), protocol.BlockClose, "round 999"),
    (protocol.Syndrome(1, 0, 0.9, 0, b"", b""), protocol.Syndrome, "does not exist"),
    (protocol.Syndrome(1, 0, 0.01, 7, U, b"abc"), protocol.Syndrome, "mode 7"),
    (protocol.Syndrome(1, 0, 0.01, 0, U, b"abc"), protocol.Syndrome, "different codes"),
    (protocol.Syndrome(1, 0, 0.01, 0, Plan.make(6000, 0.01).code.digest, b"abc"), protocol.Syndrome, "bytes for"),
    (protocol.Verify(1, 0, b"short", b"short"), protocol.Verify, "verification key"),
    (protocol.Seed(1, 0, 5, b""), protocol.Seed, "does not fit"),
    (protocol.Prepare(1, 0, U, 1.0, 2.0, 4), protocol.Prepare, "authentication"),
]


@pytest.mark.parametrize(
    ("to", "lie", "instead_of", "why"), [("alice", *t) for t in TO_ALICE] + [("bob", *t) for t in TO_BOB]
)
def test_lies_cost_the_block(ram_path: Path, to: str, lie: Any, instead_of: Any, why: str) -> None:
    async def script(pair: Pair) -> None:
        liar = pair.bob if to == "alice" else pair.alice
        send, told = liar._distiller.send, [False]

        async def lying(message: Any) -> None:
            data = message if isinstance(message, bytes) else protocol.encode(message)
            if not told[0] and isinstance(protocol.decode(data), instead_of):
                told[0] = True
                data = protocol.encode(lie)
            await send(data)

        liar._distiller.send = lying
        give(pair, 1)
        await idle(pair)
        victim = pair.a if to == "alice" else pair.b
        assert told[0]
        assert why in victim.said("block.aborted")[-1]["why"]
        assert not pair.a.store.key_ids()
        assert not pair.b.store.key_ids()
        liar._distiller.send = send
        await goes_on(pair)

    play(ram_path, script)


@pytest.mark.parametrize(
    ("speaker", "message", "why"),
    [
        ("bob", protocol.Basis(1, b""), "not for Alice"),
        ("alice", protocol.Detect(1, b""), "not for Bob"),
        ("bob", protocol.Committed(b"short", True), "16 bytes"),
        ("alice", protocol.Commit(b"short", True, b""), "16 bytes"),
        ("bob", protocol.Welcome(0, 0, 0, ()), "second WELCOME"),
    ],
)
def test_messages_out_of_place_end_the_session(ram_path: Path, speaker: str, message: Any, why: str) -> None:
    async def script(pair: Pair) -> None:
        listener = pair.a if speaker == "bob" else pair.b
        await getattr(pair, speaker).session.send(message)
        await until(lambda: any(why in e["why"] for e in listener.said("session.lost")))
        await asyncio.sleep(1.0)
        await settled(pair)
        await goes_on(pair)

    play(ram_path, script)


def test_unknown_verdicts_and_answers_change_nothing(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await pair.alice.session.send(protocol.Commit(U, True, b"t" * 16))
        await pair.bob.session.send(protocol.Committed(U, True))
        await pair.alice.session.send(protocol.LightOk(77))
        await pair.alice.session.send(protocol.LightNo(78, "why"))
        await pair.alice.session.send(protocol.Intensities(9, 9, ()))
        await asyncio.sleep(0.5)
        await goes_on(pair)

    play(ram_path, script)


def test_a_flood_ends_the_session(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        for _ in range(300):
            await pair.bob.session.send(protocol.XErrors(9, 9, ()))
        await until(lambda: any("without being asked" in e["why"] for e in pair.a.said("session.lost")))
        await settled(pair)

    play(ram_path, script)


def test_pools_that_differ_are_never_keyed_from(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        pair.a.pool.advance(pair.a.pool.written - 160)
        pair.wire.cut()
        pair.wire.mend()
        await until(lambda: "pools differ" in str(pair.alice._pool_fault) and pair.bob._pool_fault is not None)
        assert "re-key" in str(pair.alice._why_no_keys() or "") or not pair.alice._wanted
        await pair.alice.start_keying()
        await until(lambda: "pools differ" in pair.alice.status.why)
        pair.b.pool._use(400)
        pair.a.pool.advance(pair.b.pool.written)

    play(ram_path, script)


def test_a_peer_that_is_far_ahead_is_another_pool(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        pair.b.pool._use(300)
        pair.wire.cut()
        pair.wire.mend()
        await until(lambda: "not the same pool" in str(pair.alice._pool_fault))

    play(ram_path, script)


def test_a_stranger_is_shown_with_the_reason(ram_path: Path) -> None:
    async def main(loop: Any) -> None:
        a, b = make_pair(ram_path)
        pair, tasks = start(a, b, loop)
        pair.bob.session._secret = b"of another pair"
        await until(lambda: "pre-shared secret" in pair.alice.status.why)
        assert a.said("session.refused")
        await stopped(*tasks)
        a.shut(), b.shut()

    run_simulated(main)
