"""The parser of the service channel against bytes of anybody: it refuses by name, in bounded time and memory."""

from __future__ import annotations

import asyncio
import tracemalloc
from dataclasses import fields
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmodd import cbor
from qmodd.channel import ChannelDown
from qmodd.keys import protocol
from qmodd.keys.authentication import (
    NONCE_BYTES,
    Direction,
    FrameFilter,
    SessionBroken,
    open_hello,
    seal_hello,
)
from qmodd.keys.counts import BatchReport
from qmodd.keys.fields import MAX_TEXT, InDoubt, Pairs, ProtocolError
from qmodd.keys.protocol import MAX_MESSAGE_BYTES, Detect, HelpWanted, Message, Note, Seed, decode, encode
from qmodd.keys.session import Party, Session
from qmodd.keys.sifting import decode_basis, decode_detect
from qmodd.randomness import SeededRandomness
from sim.loop import run_simulated

TYPES = sorted(protocol._BY_TYPE.values(), key=lambda t: t.TYPE)
NATURAL = st.integers(0, 2**63 - 1)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
OCTETS = st.binary(max_size=64)
OF_KIND: dict[Any, st.SearchStrategy[Any]] = {
    int: NATURAL,
    float: NUMBER,
    str: st.text(max_size=40),
    bytes: OCTETS,
    bool: st.booleans(),
    tuple[int, ...]: st.lists(NATURAL, max_size=5).map(tuple),
    tuple[float, ...]: st.lists(NUMBER, max_size=5).map(tuple),
    tuple[bytes, ...]: st.lists(OCTETS, max_size=5).map(tuple),
    tuple[str, ...]: st.lists(st.text(max_size=8), max_size=5).map(tuple),
    Pairs: st.lists(st.tuples(NUMBER, NUMBER), max_size=4).map(tuple),
    InDoubt: st.lists(st.tuples(OCTETS, NATURAL), max_size=4).map(tuple),
}
LEAVES = (st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), OCTETS, st.text(max_size=9))
PLAIN = st.recursive(
    st.one_of(*LEAVES),
    lambda inner: st.one_of(st.lists(inner, max_size=6), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=12,
)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    cls = draw(st.sampled_from(TYPES))
    hints = get_type_hints(cls)
    return cls(*(draw(OF_KIND[hints[f.name]]) for f in fields(cls)))  # type: ignore[arg-type]


def refused_or_whole(data: bytes) -> None:
    """It is refused by the one error there is, or it is a message that means what its bytes say."""
    try:
        message = decode(data)
    except ProtocolError:
        return
    assert decode(encode(message)) == message


@given(messages())
def test_every_message_comes_back_as_it_was(message: Message) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    refused_or_whole(data)


@given(messages(), st.data())
def test_changed_cut_and_lengthened_messages(message: Message, data: st.DataObject) -> None:
    raw = bytearray(encode(message))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    refused_or_whole(bytes(raw))
    refused_or_whole(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    more = encode(message) + data.draw(st.binary(min_size=1, max_size=4))
    with pytest.raises(ProtocolError, match="after the end"):
        decode(more)


@given(st.sampled_from(TYPES), PLAIN)
def test_any_other_cbor_under_any_type(cls: type[Message], value: object) -> None:
    refused_or_whole(bytes([cls.TYPE]) + cbor.encode(value))


@given(st.sampled_from(TYPES), st.data())
def test_one_field_of_the_wrong_kind(cls: type[Message], data: st.DataObject) -> None:
    hints = get_type_hints(cls)
    values: list[Any] = [data.draw(OF_KIND[hints[f.name]]) for f in fields(cls)]  # type: ignore[arg-type]
    values[data.draw(st.integers(0, len(values) - 1))] = data.draw(PLAIN)
    refused_or_whole(bytes([cls.TYPE]) + cbor.encode(values))


@pytest.mark.parametrize(
    "body",
    [
        b"\x9a" + (8_000_000).to_bytes(4, "big") + b"\x80" * 8_000_000,  # eight million empty arrays
        b"\x81" * 8_000_000,  # as deep as it is long
        b"\x9b" + b"\xff" * 8,  # a length that nobody has
        b"\x85\x01\x01\x5b" + b"\xff" * 8,
        b"\xba\x7f\xff\xff\xff" + b"\x00" * 1000,
        b"\x9f" * 1000,
        b"\xd8\x1c" * 1000,  # references
    ],
    ids=["many", "deep", "long array", "long string", "long map", "indefinite", "tags"],
)
@pytest.mark.parametrize("cls", [Note, HelpWanted, Detect], ids=lambda c: c.__name__)
def test_little_memory_for_what_is_refused(cls: type[Message], body: bytes) -> None:
    data = bytes([cls.TYPE]) + body
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match=cls.__name__):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data) + 100_000
    finally:
        tracemalloc.stop()


def test_what_is_too_large_is_refused_by_name_on_both_sides() -> None:
    large = bytes(MAX_MESSAGE_BYTES)
    with pytest.raises(ValueError, match=rf"Seed: \d+ bytes; a message has at most {MAX_MESSAGE_BYTES}"):
        encode(Seed(1, 1, 8, large))
    with pytest.raises(ProtocolError, match=f"Seed of {MAX_MESSAGE_BYTES + 1} bytes"):
        decode(bytes([Seed.TYPE]) + large)
    with pytest.raises(ProtocolError, match=f"a message of {MAX_MESSAGE_BYTES + 1} bytes"):
        decode(b"\xee" + large)
    with pytest.raises(ProtocolError, match="Note: a text"):
        decode(bytes([Note.TYPE]) + cbor.encode(["x" * (MAX_TEXT + 1), "", True, ""]))


@given(st.binary(max_size=120), st.integers(1, 50))
def test_bodies_of_sifting_messages_are_refused_as_values(data: bytes, n: int) -> None:
    """Payloads inside of a message are read by readers of their own, which raise ValueError and nothing else."""
    for read in (decode_detect, BatchReport.from_bytes, lambda d: decode_basis(d, np.zeros(n, np.uint8))):
        try:
            read(data)  # type: ignore[operator]
        except ValueError:
            continue


# --- nothing gets past the filter, and nothing stops it ---

SECRET = bytes(range(64))


@given(st.lists(st.binary(max_size=80), max_size=20), st.integers(0, 19))
def test_no_bytes_of_strangers_are_messages(frames: list[bytes], at: int) -> None:
    alice = FrameFilter(SECRET, Direction.ALICE, bytes(16), bytes(16), "lab")
    bob = FrameFilter(SECRET, Direction.BOB, bytes(16), bytes(16), "lab")
    frames = [b"S" + f if i % 2 else f for i, f in enumerate(frames)]
    good = alice.seal(b"hello")
    frames.insert(min(at, len(frames)), good)
    assert [m for m in map(bob.open, frames) if m is not None] == [b"hello"]
    assert bob.open(good) is None
    assert bob.counters.forged == len(frames) - 1
    assert bob.counters.replayed == 1


@given(st.binary(max_size=200), st.integers(0, 7))
def test_no_bytes_of_strangers_are_a_hello(data: bytes, bit: int) -> None:
    assert open_hello(SECRET, Direction.ALICE, b"H" + data) is None
    good = bytearray(seal_hello(SECRET, Direction.ALICE, data))
    assert open_hello(SECRET, Direction.BOB, bytes(good)) is None  # reflected
    good[1 + len(good) // 2] ^= 1 << bit
    assert open_hello(SECRET, Direction.ALICE, bytes(good)) is None


class Flood:
    """A channel on which somebody else talks all the time, and the far end's frames are what `say` gives."""

    connected = True

    def __init__(self, junk: list[bytes]) -> None:
        self.junk = junk
        self.sent: list[bytes] = []
        self.queue: list[bytes] = []

    async def wait_connected(self) -> int:
        return 1

    async def send(self, message: bytes) -> None:
        self.sent.append(message)

    async def receive(self) -> bytes:
        await asyncio.sleep(0.5)
        if self.queue:
            return self.queue.pop(0)
        if not self.junk:
            raise ChannelDown("no more")
        return self.junk.pop(0)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda b: b"H" + b)), min_size=20, max_size=40
    )
)
def test_junk_does_not_keep_a_hello_from_being_said_again(junk: list[bytes]) -> None:
    async def main(loop: Any) -> None:
        channel = Flood(list(junk))
        session = Session(channel, SECRET, Party(Direction.ALICE, "A", "lab"), SeededRandomness(1))
        with pytest.raises(ChannelDown):
            await session.open()
        # Ten seconds at least: one at once, then one every two seconds, and never a frame of a session.
        assert len(channel.sent) >= 5
        assert len(set(channel.sent)) == 1
        with pytest.raises(SessionBroken):
            await session.send(b"\x04\x81\x60")

    run_simulated(main)


def hello(nonce: bytes, answers: bytes) -> bytes:
    said = protocol.Hello(protocol.PROTOCOL_VERSION, "bob", "B", "lab", nonce, answers)
    return seal_hello(SECRET, Direction.BOB, encode(said))


def test_what_is_played_back_neither_ends_a_session_nor_opens_one() -> None:
    async def main(loop: Any) -> None:
        channel = Flood([])
        session = Session(channel, SECRET, Party(Direction.ALICE, "A", "lab"), SeededRandomness(1))
        old = bytes(NONCE_BYTES)
        channel.queue = [hello(old, b"\x01" * NONCE_BYTES), hello(old, b"")]
        with pytest.raises(ChannelDown):
            await session.open()  # asked for, answered, but nobody has answered our nonce
        offered = session._nonce
        channel.queue = [hello(b"\x07" * NONCE_BYTES, b"")]
        with pytest.raises(ChannelDown):
            await session.open()
        assert session._nonce != offered
        channel.queue = [hello(b"\x09" * NONCE_BYTES, offered)]  # of the attempt before
        with pytest.raises(ChannelDown):
            await session.open()
        assert session._filter is None

    run_simulated(main)
