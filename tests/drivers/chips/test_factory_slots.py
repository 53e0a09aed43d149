"""The factory record's slots: round trip, the emulated factory's bytes, and writes that are torn."""

from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.chips.factory_slots import (
    SLOT_BYTES,
    SLOTS,
    SlotError,
    decode_slot,
    encode_slot,
    in_force,
    later,
    next_slot,
)
from drivers.chips.fru import decode
from sim.fru_image import fru_image
from sim.individuals import draw_alice, draw_bob, factory_record

RECORD = json.dumps({"serial": "QA1", "schema": 1, "voa": list(range(60))}).encode()
BLANK = b"\xff" * 8192


def put(image: bytes, name: str, data: bytes) -> bytes:
    at = SLOTS[name]
    return image[:at] + data + image[at + len(data) :]


@given(st.binary(max_size=2000), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_a_record_comes_back_as_it_was(text: bytes, schema: int, sequence: int) -> None:
    slot = decode_slot("A", encode_slot(text, schema, sequence).ljust(SLOT_BYTES, b"\xff"))
    assert (slot.text, slot.schema, slot.sequence) == (text, schema, sequence)


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_the_emulated_factory_writes_what_is_read(seed: int) -> None:
    """Two implementations of one specification: the writer knows nothing of the reader."""
    for individual in (draw_alice(seed), draw_bob(seed)):
        image = fru_image(individual, seed)
        slot, faults = in_force(image)
        assert slot is not None
        assert not faults
        assert slot.sequence == 1
        assert slot.schema == 1
        assert json.loads(slot.text) == factory_record(individual, seed)
        fru = decode(image[:1024])
        assert fru.product_serial == individual.serial
        assert fru.record is not None


def test_a_write_torn_at_any_byte_leaves_the_record_in_force() -> None:
    old = put(BLANK, "A", encode_slot(RECORD, 1, 7))
    old = put(old, "B", encode_slot(b"older" * 50, 1, 6))
    name, sequence = next_slot(old)
    assert (name, sequence) == ("B", 8)
    fresh = encode_slot(b'{"serial": "QA1", "new": true}' + RECORD, 1, sequence)
    for cut in range(len(fresh)):
        slot, _ = in_force(put(old, name, fresh[:cut]))
        assert (slot and slot.text) == RECORD, f"torn after {cut} bytes"
    slot, faults = in_force(put(old, name, fresh))
    assert slot is not None
    assert slot.slot == "B"
    assert slot.sequence == 8
    assert not faults


@given(st.data())
def test_no_flipped_bit_goes_unseen(data: st.DataObject) -> None:
    raw = bytearray(encode_slot(RECORD, 1, 3))
    at = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[at // 8] ^= 1 << at % 8
    with pytest.raises(SlotError):
        decode_slot("A", bytes(raw))


def test_blank_is_no_fault_but_rubbish_is() -> None:
    assert in_force(BLANK) == (None, ())
    assert next_slot(BLANK) == ("A", 1)
    slot, faults = in_force(put(BLANK, "B", b"rubbish"))
    assert slot is None
    assert len(faults) == 1
    assert faults[0].startswith("slot B")


def test_the_sequence_wraps() -> None:
    assert later(0, 2**32 - 1)
    assert not later(2**32 - 1, 0)
    assert not later(5, 5)
    image = put(put(BLANK, "A", encode_slot(b"a", 1, 2**32 - 1)), "B", encode_slot(b"b", 1, 0))
    slot, _ = in_force(image)
    assert slot is not None
    assert slot.text == b"b"
    assert next_slot(image) == ("A", 1)


def test_too_much_is_refused_with_the_limit() -> None:
    noise = b"".join(zlib.crc32(bytes([i % 256, i // 256])).to_bytes(4, "little") for i in range(1000))
    with pytest.raises(SlotError, match="a slot has 3584"):
        encode_slot(noise, 1, 1)
    with pytest.raises(SlotError, match="65536 is the limit"):
        encode_slot(bytes(70_000), 1, 1)
    with pytest.raises(SlotError, match="schema 256"):
        encode_slot(b"", 256, 1)


def test_a_promise_of_more_than_the_limit_is_not_inflated() -> None:
    raw = bytearray(encode_slot(bytes(60_000), 1, 1))
    raw[16:20] = (1 << 30).to_bytes(4, "little")
    with pytest.raises(SlotError, match="lengths"):
        decode_slot("A", bytes(raw))
