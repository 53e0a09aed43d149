from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import registry
from drivers.bus.visa import make_block
from drivers.errors import BusFault, OutOfRange, Timeout, WrongDevice
from drivers.instruments.tag_block import Stream, unpack_tags
from drivers.instruments.time_tagger import TimeTagger
from drivers.roles import TagBlock
from tests.drivers.fakes import Clock, Visa, make_pool

MASK = (1 << 54) - 1
Record = tuple[int, int, int]  # time ps, channel, kind


def block(seq: int, start: int, end: int, records: list[Record], flags: int = 0, ppm: int = 1_000_000) -> bytes:
    body = b"".join(struct.pack("<Q", (t & MASK) | c << 54 | k << 60) for t, c, k in records)
    head = struct.pack("<4sHHQqqIII", b"QTG1", 48, flags, seq, start, end, len(records), 0, ppm)
    return head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body


def take(stream: Stream, data: bytes) -> TagBlock:
    return stream.take(unpack_tags(data, "x"))


def test_clicks_are_whole_and_sorted() -> None:
    stream = Stream()
    got = take(
        stream, block(0, 0, 1000, [(5, 0, 0), (900, 2, 0), (20, 1, 0), (30, 9, 0), (40, 0, 5)], flags=8, ppm=1000)
    )
    assert got.t.tolist() == [5, 20, 900]
    assert got.channel.tolist() == [0, 1, 2]
    assert got.t.dtype == np.dtype(np.int64)
    assert got.channel.dtype == np.dtype(np.uint8)
    assert (got.from_ps, got.to_ps, got.sequence, got.gap, got.lost_ps) == (0, 1000, 0, False, ())
    assert (got.more, got.gate_ppm, got.reference_unlocked) == (True, 1000, False)
    empty = take(stream, block(1, 1000, 2000, []))
    assert (len(empty.t), empty.from_ps, empty.gap) == (0, 1000, False)


@given(st.integers(0, 5 * (1 << 54)), st.lists(st.integers(-(1 << 19), 10**12), max_size=20))
def test_times_unwrap_over_any_number_of_turns(start: int, offsets: list[int]) -> None:
    stream = Stream()
    stream._upto_ps = start
    times = sorted(max(0, start + o) for o in offsets)
    got = take(stream, block(0, start, start + 10**12, [(t, 0, 0) for t in times]))
    assert got.t.tolist() == times


def test_an_overflow_is_a_loss_from_begin_to_end() -> None:
    stream = Stream()
    records = [(10, 0, 0), (50, 0, 2), (400, 0, 4), (3, 1, 4), (80, 0, 3), (90, 1, 0)]
    got = take(stream, block(0, 0, 100, records, flags=1))
    assert got.lost_ps == ((50, 80),)
    assert got.gap
    assert got.t.tolist() == [10, 90]  # 'missed' counts are no times


def test_an_overflow_that_ends_in_the_next_block() -> None:
    stream = Stream()
    assert take(stream, block(0, 0, 100, [(60, 0, 2)], flags=1)).lost_ps == ((60, 100),)
    assert take(stream, block(1, 100, 200, [(7, 0, 4), (150, 0, 3)], flags=1)).lost_ps == ((100, 150),)
    assert not take(stream, block(2, 200, 300, [])).gap


def test_an_end_without_a_begin_and_a_loss_without_a_time() -> None:
    assert take(Stream(), block(0, 0, 100, [(40, 0, 3)], flags=1)).lost_ps == ((0, 40),)
    assert take(Stream(), block(0, 0, 100, [(5, 0, 4)])).lost_ps == ((0, 100),)
    assert take(Stream(), block(0, 0, 100, [], flags=1)).lost_ps == ((0, 100),)


def test_a_missing_block_is_a_loss() -> None:
    stream = Stream()
    take(stream, block(0, 0, 100, []))
    got = take(stream, block(2, 250, 300, [(260, 0, 0)]))
    assert (got.from_ps, got.to_ps, got.lost_ps, got.gap) == (100, 300, ((100, 250),), True)
    assert got.t.tolist() == [260]


def test_a_lost_reference_is_told_by_flag_or_record() -> None:
    assert take(Stream(), block(0, 0, 100, [], flags=2)).reference_unlocked
    assert take(Stream(), block(0, 0, 100, [(5, 0, 1)])).reference_unlocked


@given(
    st.lists(st.booleans(), min_size=1, max_size=12),
    st.lists(st.lists(st.integers(0, 99), max_size=4), min_size=12, max_size=12),
)
def test_every_instant_is_covered_once_or_lost(delivered: list[bool], clicks: list[list[int]]) -> None:
    stream = Stream()
    upto = 0
    for i, ok in enumerate(delivered):
        if not ok:
            continue
        times = sorted(100 * i + c for c in clicks[i])
        got = take(stream, block(i, 100 * i, 100 * i + 100, [(t, 0, 0) for t in times]))
        assert got.from_ps == upto
        assert got.t.tolist() == times
        assert got.lost_ps == (((upto, 100 * i),) if upto != 100 * i else ())
        upto = got.to_ps


@given(st.lists(st.integers(0, 99), max_size=5), st.data())
def test_a_damaged_block_never_passes(times: list[int], draw: st.DataObject) -> None:
    good = block(0, 0, 100, [(t, 0, 0) for t in times])
    bad = bytearray(good)
    bad[draw.draw(st.integers(0, len(bad) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(BusFault):
        unpack_tags(bytes(bad), "x")
    with pytest.raises(BusFault):
        unpack_tags(good[: draw.draw(st.integers(0, len(good) - 1))], "x")


class Device:
    def __init__(self) -> None:
        self.idn = "QMODD,TIME-TAGGER,B1,1.0"
        self.values = {"TAGS:TIME": str(2**60), "COUN": "1,2,18014398509481984", "COUN:RATE": "1.5,2,3"}
        self.values |= {"TAGS:AVA": "5", "TAGS:DEPT": "4000000", "TAGS:LOST": "0"}
        self.seq = 0
        self.broken = 0
        self.silent = False
        self.log: list[str] = []

    def __call__(self, message: bytes) -> bytes | None:
        text = message.decode().strip()
        self.log.append(text)
        head, _, argument = text.partition(" ")
        if head == "SYST:ERR?":
            return b'0,"No error"\n'
        if head == "TAGS:DATA?":
            return None if self.silent else self._data()
        if head == "*IDN?":
            return self.idn.encode() + b"\n"
        if head.endswith("?"):
            return self.values[head[:-1]].encode() + b"\n"
        if head == "TAGS:RUN":
            self.seq = 0
        if argument:
            self.values[head] = argument
        return None

    def _data(self) -> bytes:
        data = bytearray(block(self.seq, 100 * self.seq, 100 * self.seq + 100, [(100 * self.seq + 7, 1, 0)]))
        self.seq += 1
        if self.broken:
            self.broken -= 1
            data[-1] ^= 1
        return make_block(bytes(data)) + b"\n"


def tagger(clock: Clock, device: Device) -> TimeTagger:
    pool = make_pool(clock, visa=lambda r: Visa(device))
    made = registry.create("time_tagger", "tagger", "visa:TCPIP::h::hislip0::INSTR", pool, {})
    assert isinstance(made, TimeTagger)
    return made


async def test_the_tagger(clock: Clock) -> None:
    device = Device()
    made = tagger(clock, device)
    assert (await made.open()).serial == "B1"
    assert "INP3:THR 0.1" in device.log
    await made.run()
    assert (await made.read()).t.tolist() == [7]
    device.broken = 1
    got = await made.read()  # the broken one is thrown away, the next one tells what it covered
    assert (got.lost_ps, got.t.tolist(), got.gap) == (((100, 200),), [207], True)
    device.broken = 2
    with pytest.raises(BusFault, match="wrong CRC-32"):
        await made.read()
    assert (await made.read()).lost_ps == ((300, 500),)
    device.silent = True
    with pytest.raises(Timeout):
        await made.read()
    device.silent = False
    device.seq += 1  # the reply that never came had used its block up
    assert (await made.read()).lost_ps == ((600, 700),)
    await made.run()
    assert not (await made.read()).gap
    assert await made.now_ps() == 2**60
    assert (await made.counts()).tolist() == [1, 2, 2**54]
    assert (await made.rates()).tolist() == [1.5, 2.0, 3.0]
    assert await made.fill() == (5, 4_000_000, 0)
    await made.stop()
    await made.close()


async def test_settings(clock: Clock) -> None:
    device = Device()
    made = tagger(clock, device)
    await made.set_gate(1_000_000, 1_000_000_000)
    assert device.values["TAGS:GATE"] == "1000000,1000000000"
    await made.set_delay(1, -350)
    assert device.values["INP2:DEL"] == "-350"
    with pytest.raises(OutOfRange, match=r"tagger\.delay: 1e\+07 ps"):
        await made.set_delay(1, 10_000_000)
    with pytest.raises(OutOfRange, match=r"tagger\.threshold: 3 V"):
        await made.set_threshold(0, 3.0)
    with pytest.raises(ValueError, match="no channel 3"):
        await made.set_threshold(3, 0.1)
    device.idn = "QMODD,SYMBOL-SOURCE,A1,1.0"
    with pytest.raises(WrongDevice, match="expected QMODD,TIME-TAGGER"):
        await made.open()
    plain = device.__call__

    def stubborn(message: bytes) -> bytes | None:
        return b"0,0\n" if message == b"TAGS:GATE?\n" else plain(message)

    made = registry.create("time_tagger", "t", "visa:x", make_pool(clock, visa=lambda r: Visa(stubborn)), {})  # type: ignore[assignment]
    with pytest.raises(BusFault, match="gate is '0,0' after 5,10"):
        await made.set_gate(5, 10)
