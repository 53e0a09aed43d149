"""Messages, filter, session, tags, pool, blocks: one at a time, against a hostile far end."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.cbor import encode as cbor
from qmodd.crypto import mac
from qmodd.keys import protocol
from qmodd.keys.authentication import (
    BadTag,
    BlockAuthentication,
    Direction,
    FrameFilter,
    SessionBroken,
    Transcript,
    check_token,
    is_hello,
    open_hello,
    seal_hello,
    verdict_token,
)
from qmodd.keys.blocks import BlockBuilder, Flags, counts_alice, inside
from qmodd.keys.conversation import BlockAborted, HelpLedger
from qmodd.keys.fields import InDoubt, Pairs, ProtocolError
from qmodd.keys.protocol import PROTOCOL_VERSION, Hello, Message
from qmodd.keys.reconciliation import Plan, disclosed_bits
from qmodd.keys.session import Party, Session
from qmodd.keys.sifting import Sifted
from qmodd.randomness import SeededRandomness
from sim.loop import run_simulated
from tests.keys.engine.wire import Wire
from tests.keys.engine.world import small_plan

SAMPLES: dict[Any, Any] = {
    int: 7, float: 0.25, str: "why", bytes: b"\x01\x02", bool: True, tuple[int, ...]: (1, 2),
    tuple[float, ...]: (0.5, 0.5), tuple[bytes, ...]: (b"a", b""), tuple[str, ...]: ("a", ""),
    Pairs: ((0.5, 0.6), (0.1, 0.2)),
    InDoubt: ((b"u" * 16, 4),),
}  # fmt: skip


def sample(cls: Any) -> Message:
    hints = get_type_hints(cls)
    made: Message = cls(*(SAMPLES[hints[f.name]] for f in fields(cls)))
    return made


CLASSES = sorted(protocol._BY_TYPE.values(), key=lambda c: c.TYPE)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_messages_survive_the_wire(cls: Any) -> None:
    message = sample(cls)
    assert protocol.decode(protocol.encode(message)) == message


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_wrong_fields_are_refused(cls: Any) -> None:
    good = [getattr(sample(cls), f.name) for f in fields(cls)]
    for bad in ({}, None, -1, 1 << 70, float("nan"), "x" * 600, [[1]], [b"", 1, 2]):
        for i in range(len(good)):
            if bad == -1 and isinstance(good[i], float):
                continue  # a number like any other
            with pytest.raises(ProtocolError):
                protocol.decode(bytes([cls.TYPE]) + cbor([*good[:i], bad, *good[i + 1 :]]))
    with pytest.raises(ProtocolError, match="array of"):
        protocol.decode(bytes([cls.TYPE]) + cbor(good[:-1]))


def test_sizes_and_types_are_bounded() -> None:
    for data in (b"", b"\x01", b"\xff\x80", b"\x01\xff\xff", bytes(protocol.MAX_MESSAGE_BYTES + 1)):
        with pytest.raises(ProtocolError):
            protocol.decode(data)
    with pytest.raises(ProtocolError, match="too long"):
        protocol.decode(bytes([protocol.HelpWanted.TYPE]) + cbor([1, 1, [0] * 70_000, [1]]))


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_noise_raises_protocol_errors_only(noise: bytes) -> None:
    for number in (0x02, 0x20, 0x33, 0x40):
        try:
            protocol.decode(bytes([number]) + noise)
        except ProtocolError:
            continue


# --- filter and session ---


def filters() -> tuple[FrameFilter, FrameFilter]:
    a = FrameFilter(b"secret", Direction.ALICE, b"a" * 16, b"b" * 16, "lab")
    b = FrameFilter(b"secret", Direction.BOB, b"a" * 16, b"b" * 16, "lab")
    return a, b


def test_filter_passes_each_frame_once_and_in_order() -> None:
    a, b = filters()
    frames = [a.seal(bytes([i])) for i in range(4)]
    assert b.open(frames[0]) == b"\x00"
    assert b.open(frames[0]) is None
    assert b.open(frames[1][:-1] + b"\x00") is None
    assert b.open(b"S") is None
    assert a.open(frames[1]) is None  # reflected
    assert b.open(frames[1]) == b"\x01"
    assert (b.counters.forged, b.counters.replayed) == (2, 1)
    with pytest.raises(SessionBroken, match="missing"):
        b.open(frames[3])


def test_filter_keys_depend_on_everything() -> None:
    a, _ = filters()
    frame = a.seal(b"x")
    for other in (
        FrameFilter(b"another", Direction.BOB, b"a" * 16, b"b" * 16, "lab"),
        FrameFilter(b"secret", Direction.BOB, b"c" * 16, b"b" * 16, "lab"),
        FrameFilter(b"secret", Direction.BOB, b"a" * 16, b"b" * 16, "lib"),
    ):
        assert other.open(frame) is None


def test_hello_belongs_to_its_speaker() -> None:
    frame = seal_hello(b"secret", Direction.ALICE, b"body")
    assert is_hello(frame)
    assert open_hello(b"secret", Direction.ALICE, frame) == b"body"
    assert open_hello(b"secret", Direction.BOB, frame) is None
    assert open_hello(b"secret", Direction.ALICE, b"S" + frame[1:]) is None


def session(wire: Wire, me: Direction, secret: bytes = b"secret", **party: str) -> Session:
    p = Party(me, party.pop("serial", f"S-{me.name}"), party.pop("link", "lab"), party.pop("peer", ""))
    return Session(wire.end(me), secret, p, SeededRandomness(me + 1))


async def opened(loop: Any, wire: Wire, *sessions: Session, seconds: float = 10) -> bool:
    for s in sessions:
        await s._channel.wait_connected()
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(s.open() for s in sessions))
    except TimeoutError:
        return False
    return True


def test_sessions_open_whoever_is_first_and_whatever_is_lost() -> None:
    async def main(loop: Any) -> None:
        for lost in range(5):
            wire = Wire()
            seen = [0]

            def tamper(d: int, n: int, f: bytes, seen: list[int] = seen, lost: int = lost) -> list[bytes]:
                seen[0] += 1
                return [] if seen[0] == lost else [f]

            wire.tamper = tamper
            a, b = session(wire, Direction.ALICE, peer="S-BOB"), session(wire, Direction.BOB)
            assert await opened(loop, wire, a, b)
            assert (a.peer_serial, b.peer_serial) == ("S-BOB", "S-ALICE")
            await a.send(protocol.LightOk(3))
            try:
                async with asyncio.timeout(3):
                    assert (await b.receive())[0] == protocol.LightOk(3)
            except SessionBroken:
                assert lost in (1, 2, 3)  # the answer was lost, so the handshake goes on inside the session

    run_simulated(main)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"secret": b"other"}, "pre-shared secret"),
        ({"link": "other"}, "belongs to link"),
        ({"serial": "X"}, "expected is"),
    ],
)
def test_strangers_get_no_session_and_a_reason(change: dict[str, Any], why: str) -> None:
    async def main(loop: Any) -> None:
        wire = Wire()
        a, b = session(wire, Direction.ALICE, peer="S-BOB"), session(wire, Direction.BOB, **change)
        assert not await opened(loop, wire, a, b)
        assert why in a.refused

    run_simulated(main)


def test_other_versions_and_malformed_hellos() -> None:
    async def main(loop: Any) -> None:
        for body, why in (
            (protocol.encode(Hello(9, "bob", "S", "lab", b"n" * 16, b"")), "version 9"),
            (protocol.encode(Hello(PROTOCOL_VERSION, "bob", "S", "lab", b"n", b"")), "nonce"),
            (protocol.encode(protocol.LightOk(1)), "another protocol"),
            (b"noise", "another protocol"),
        ):
            wire = Wire()
            a = session(wire, Direction.ALICE)
            wire.queues[0].append(seal_hello(b"secret", Direction.BOB, body))
            assert not await opened(loop, wire, a)
            assert why in a.refused
            with pytest.raises(SessionBroken):
                await a.send(protocol.LightOk(1))
            wire.queues[0].append(b"S")
            with pytest.raises(SessionBroken):
                await a.receive()

    run_simulated(main)


# --- tags and pool ---


class Pads:
    def pad(self, direction: int, round_: int, phase: int) -> bytearray:
        return bytearray(mac.digest(bytes([direction, round_, phase])))


def talk() -> tuple[Transcript, BlockAuthentication]:
    t = Transcript()
    t.add(Direction.ALICE, b"one")
    t.add(Direction.BOB, b"two")
    return t, BlockAuthentication(Pads(), "lab", 3, t)


def test_tags_cover_both_directions_and_are_made_once() -> None:
    (_, a), (said, b) = talk(), talk()
    tag = a.tag(Direction.ALICE, 0)
    with pytest.raises(RuntimeError, match="used up"):
        a.tag(Direction.ALICE, 0)
    b.check(Direction.ALICE, 0, tag)
    assert 0 < b.eps == a.eps < 1e-28
    said.add(Direction.BOB, b"three")
    with pytest.raises(BadTag):
        BlockAuthentication(Pads(), "lab", 3, said).check(Direction.ALICE, 0, tag)
    split = Transcript(([b"on", b"e"], [b"two"]))
    with pytest.raises(BadTag):
        BlockAuthentication(Pads(), "lab", 3, split).check(Direction.ALICE, 0, tag)
    for other in (("lib", 3), ("lab", 4)):
        with pytest.raises(BadTag):
            BlockAuthentication(Pads(), *other, talk()[0]).check(Direction.ALICE, 0, tag)


def test_a_verdict_needs_its_own_token() -> None:
    commit, abort = verdict_token(Pads(), 3, True), verdict_token(Pads(), 3, False)
    assert commit != abort
    check_token(Pads(), 3, True, commit)
    check_token(Pads(), 3, False, abort)
    for round_, verdict, token in ((3, False, commit), (3, True, abort), (4, True, commit), (3, True, b"")):
        with pytest.raises(BadTag):
            check_token(Pads(), round_, verdict, token)


# --- blocks ---


def batch(n_z: int, n_x: int, first: int) -> Sifted:
    basis = np.concatenate([np.zeros(n_z, np.uint8), np.ones(n_x, np.uint8)])
    none = np.zeros(n_z + n_x, np.uint8)
    return Sifted(np.arange(first, first + n_z + n_x), basis, none, none, none)


def test_blocks_close_at_exactly_n_z_inside_batches() -> None:
    plan = replace(small_plan(1), n_z=100)
    builder = BlockBuilder(plan, b"plan")
    closed = []
    for k, n in enumerate((60, 30, 250, 5)):
        said = Transcript()
        said.add(Direction.BOB, bytes([k]))
        closed += builder.add(said, batch(n, 4, 1000 * k), float(k))
    assert [len(raw.material.z_bits) for raw in closed] == [100, 100, 100]
    assert [raw.block for raw in closed] == [0, 1, 2]
    assert builder.progress == pytest.approx(0.45)
    assert [b"".join(raw.transcript.said[1]) for raw in closed] == [b"\x00\x01\x02", b"\x02", b"\x02"]
    assert all(raw.transcript.said[0] == [b"plan", b""] for raw in closed)
    with pytest.raises(ValueError, match="is open"):
        builder.set_intensities(3, plan.mu, b"late")
    with pytest.raises(ValueError, match="errors"):
        counts_alice(closed[0], (99_999, 0))


def test_flags_cover_intervals_with_a_margin() -> None:
    flags = Flags(margin_s=0.5)
    flags.begin("bias", 10.0)
    flags.begin("bias", 12.0)
    assert flags.ranges(1000, 10.0, 100.0).tolist() == [[950, 2**62]]
    flags.end("bias", 13.0)
    flags.end("bias", 14.0)
    assert flags.ranges(1000, 10.0, 100.0).tolist() == [[950, 1350]]
    assert inside(np.array([949, 950, 1349, 1350]), flags.ranges(1000, 10.0, 100.0)).tolist() == [0, 1, 1, 0]
    flags.forget(13.5)
    assert flags.ranges(1000, 10.0, 100.0).shape == (0, 2)


def test_help_is_counted_and_comes_in_order() -> None:
    plan = Plan.make(70_000, 0.02)
    ledger = HelpLedger(plan)
    base = ledger.leak_bits
    assert base == plan.syndrome_bits + 128
    ledger.add(((1, 1),))
    ledger.add(((1, 2), (0, 1)))
    ledger.add(((1, 3),))
    ledger.add(((1, 4),))
    # More syndrome up to as much again, then the frame; and the first help for the other one.
    assert ledger.leak_bits - base == plan.code.syndrome_bits + 35_000 + disclosed_bits(plan, 0, 1)
    assert ledger.frames_helped == 2
    for bad in ((1, 5), (1, 1), (0, 3), (2, 1)):
        with pytest.raises(BlockAborted, match="not due"):
            ledger.add((bad,))
