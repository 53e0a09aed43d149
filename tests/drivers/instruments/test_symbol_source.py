from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import registry
from drivers.bus.visa import make_block
from drivers.errors import BusFault, OutOfRange, Refused, Stale, Timeout, WrongDevice
from drivers.instruments import symbol_source
from drivers.instruments.symbol_block import pack_slots, unpack_symbols
from drivers.instruments.symbol_source import SymbolSource
from drivers.roles import LightMode, Pilot
from tests.drivers.fakes import Clock, Visa, make_pool

ADDRESS = "visa:TCPIP::h::hislip0::INSTR"


def answer_block(first: int, nibbles: list[int], run: int = 1) -> bytes:
    padded = [*nibbles, 0][: len(nibbles) + len(nibbles) % 2]
    body = bytes(a | b << 4 for a, b in zip(padded[0::2], padded[1::2], strict=True))
    head = struct.pack("<4sHHQIII", b"QSY1", 32, 0, first, len(nibbles), run, 0)
    return head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body


class Device:
    """SCPI as agreed: sets have no reply, refused queries none either, errors queue up."""

    def __init__(self) -> None:
        self.values = {
            "SYMB:PER": "8000",
            "SYMB:BIN": "800",
            "STAT:QUES": "2",
            "SYMB:MEM": "5,900",
            "OUTP:RAND:RMS": "3.1",
        }
        self.values |= {"OUTP:CARV:AMPL": "1.0", "OUTP:STAT:AMPL": "1.0", "OUTP:DEC:AMPL": "1.0", "SYMB:MODE": "OFF"}
        self.errors: list[str] = []
        self.refuse: dict[str, str] = {}
        self.idn = "QMODD,SYMBOL-SOURCE,A1,1.0"
        self.run = 0
        self.slot = 10
        self.silent = 0
        self.corrupt = False
        self.log: list[str] = []

    def __call__(self, message: bytes) -> bytes | None:
        assert message.endswith(b"\n")
        text = message[:24].split(b"#")[0].decode().strip()
        self.log.append(text)
        if self.silent:
            self.silent -= 1
            return None
        head, _, argument = text.partition(" ")
        if text == "*CLS":
            self.errors.clear()
        elif text == "SYST:ERR?":
            return (self.errors.pop(0) if self.errors else '0,"No error"').encode() + b"\n"
        elif head in self.refuse:
            self.errors.append(self.refuse[head])
        elif head == "SYMB:READ?":
            return self._symbols(message)
        elif head == "SYMB:RANG?":
            first, count = map(int, message.split()[1].split(b","))
            return make_block(answer_block(first, [1] * count, self.run)) + b"\n"
        elif head.endswith("?"):
            return self._query(head[:-1])
        else:
            self._set(head, argument, message)
        return None

    def _query(self, head: str) -> bytes:
        if head == "*IDN":
            return self.idn.encode() + b"\n"
        if head == "SYMB:RUN":
            return f"{self.run},{self.slot}\n".encode()
        return self.values[head].encode() + b"\n"

    def _set(self, head: str, argument: str, message: bytes) -> None:
        if head == "SYMB:RUN":
            self.run += 1
        elif head == "SYMB:STOP":
            self.run = 0
        elif head.startswith("SYMB:PROB"):
            self.values[head] = str(round(float(message.split()[1]) * 65536) / 65536)
        else:
            self.values[head] = message.split(b" ", 1)[1].decode().strip() if b" " in message else ""

    def _symbols(self, message: bytes) -> bytes:
        block = message.split(b"#", 1)[1].removesuffix(b"\n")
        request = block[1 + int(block[:1]) :]
        (first,) = struct.unpack_from("<Q", request)
        slots = first + np.concatenate([[0], np.cumsum(np.frombuffer(request, "<u4", offset=8).astype(np.int64))])
        reply = bytearray(answer_block(int(first), [int(s) % 8 for s in slots], self.run))
        if self.corrupt:
            reply[-1] ^= 1
        return make_block(bytes(reply)) + b"\n"


def source(clock: Clock, device: Device) -> SymbolSource:
    pool = make_pool(clock, visa=lambda r: Visa(device))
    made = registry.create("symbol_source", "source", ADDRESS, pool, {"state_max_v": 8.0})
    assert isinstance(made, SymbolSource)
    return made


async def test_open_is_dark(clock: Clock) -> None:
    device = Device()
    device.errors = ['-113,"of someone before"']
    made = source(clock, device)
    identity = await made.open()
    assert (identity.model, identity.serial, identity.firmware) == ("SYMBOL-SOURCE", "A1", "1.0")
    assert (made.period_ps, made.bin_ps) == (8000.0, 800.0)
    assert device.values["OUTP:CARV:AMPL"] == "0.0"
    assert "SYMB:MODE OFF" in device.log
    await made.close()


async def test_settings_are_verified(clock: Clock) -> None:
    device = Device()
    made = source(clock, device)
    assert await made.set_probabilities(0.25, 0.3) == (0.25, round(0.3 * 65536) / 65536)
    await made.set_rf(state_v=4.0, decoy_v=2.0)
    assert device.values["OUTP:STAT:AMPL"] == "4.0"
    assert device.values["OUTP:CARV:AMPL"] == "1.0"
    with pytest.raises(OutOfRange, match=r"source\.state: 9 V is above the upper limit 8 V"):
        await made.set_rf(carver_v=1.5, state_v=9.0)
    assert device.values["OUTP:CARV:AMPL"] == "1.0"  # nothing of it was written
    with pytest.raises(OutOfRange, match=r"source\.probability: 1\.5"):
        await made.set_probabilities(0.5, 1.5)
    assert await made.set_randomiser(True) == 3.1
    assert await made.questionable() == 2
    assert await made.memory() == (5, 900)
    await made.free(77)
    assert "SYMB:FREE 77" in device.log
    device.values["OUTP:RAND"] = "OFF"
    device._set = lambda *a: None  # type: ignore[method-assign]
    with pytest.raises(BusFault, match="holds 4 after 5 was set"):
        await made.set_rf(state_v=5.0)
    with pytest.raises(BusFault, match="the randomiser says 'OFF'"):
        await made.set_randomiser(True)
    device.values["OUTP:STAT:AMPL"] = "?"
    with pytest.raises(BusFault, match="expected a number, got"):
        await made.set_rf(state_v=5.0)


async def test_modes_and_runs(clock: Clock) -> None:
    device = Device()
    made = source(clock, device)
    assert await made.run() == 1
    assert await made.now() == (1, 10)
    await made.set_mode(LightMode.FIX, 2, 1)
    assert await made.mode() == "FIX,2,1"
    await made.set_mode(LightMode.KEY, at_slot=50_000_000)
    assert device.values["SYMB:MODE:AT"] == "50000000,KEY"
    device.refuse["SYMB:MODE:AT"] = '-222,"Data out of range; needs 0.2 s"'
    with pytest.raises(Refused, match=r"source at visa:.*: SYMB:MODE:AT 5,SYNC: -222,.*0\.2 s"):
        await made.set_mode(LightMode.SYNC, at_slot=5)
    with pytest.raises(ValueError, match="state 4"):
        await made.set_mode(LightMode.FIX, 4)
    device._set = lambda *a: None  # type: ignore[method-assign]
    device.run = 0
    with pytest.raises(BusFault, match="did not start"):
        await made.run()


async def test_symbols(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbol_source, "CHUNK", 3)
    device = Device()
    made = source(clock, device)
    await made.run()
    slots = np.array([3, 4, 9, 10, 2**33, 2**33 + 5, 2**34, 2**40], np.int64)
    assert (await made.read_symbols(slots)).tolist() == [int(s) % 8 for s in slots]
    assert (await made.read_symbols(np.empty(0, np.int64))).tolist() == []
    assert (await made.read_range(5, 4)).tolist() == [1] * 4
    device.corrupt = True
    before = device.log.count("SYMB:READ?")
    with pytest.raises(BusFault, match="wrong CRC-32"):
        await made.read_symbols(np.array([1, 2], np.int64))
    assert device.log.count("SYMB:READ?") == before + 1  # each slot is answered once: never asked again
    device.corrupt = False
    device.run = 7
    with pytest.raises(Stale, match="symbols of run 7, not of run 1"):
        await made.read_symbols(np.array([1, 2], np.int64))
    device._symbols = lambda message: make_block(answer_block(9, [1]))  # type: ignore[method-assign]
    with pytest.raises(BusFault, match="asked for 2 slots from 1, got 1 from 9"):
        await made.read_symbols(np.array([1, 2], np.int64))


async def test_a_refused_query_is_told_with_its_reason(clock: Clock) -> None:
    device = Device()
    made = source(clock, device)
    device.refuse["SYMB:RANG?"] = '-221,"Settings conflict; KEY slots"'
    with pytest.raises(Refused, match=r"SYMB:RANG\? 5,4: -221"):
        await made.read_range(5, 4)
    device.refuse.clear()
    device.silent = 1
    assert await made.questionable() == 2  # asked again: harmless
    device.silent = 1
    with pytest.raises(Timeout):
        await made.read_range(5, 4)
    device.silent = 99
    with pytest.raises(Timeout):
        await made.questionable()
    device.silent = 0
    device.errors = ['-113,"left over"']
    made._scpi._suspect = True
    await made.free(1)  # what was left over is not taken for its own


async def test_answers_that_are_none(clock: Clock) -> None:
    device = Device()
    made = source(clock, device)
    device.values["STAT:QUES"] = "x"
    with pytest.raises(BusFault, match=r"STAT:QUES\? answered 'x'"):
        await made.questionable()
    device.values["SYMB:PER"] = "1,y"
    with pytest.raises(BusFault, match=r"SYMB:PER\? answered"):
        await made.open()
    device.errors = ["nonsense"]
    made._scpi._suspect = False
    with pytest.raises(BusFault, match=r"SYST:ERR\? answered 'nonsense'"):
        await made.free(1)
    device.idn = "ACME,SCOPE,1,2"
    with pytest.raises(WrongDevice, match=r"source at visa:.*: expected QMODD,SYMBOL-SOURCE, found 'ACME,SCOPE,1,2'"):
        await made.open()
    with pytest.raises(WrongDevice, match="no bus"):
        await registry.create("symbol_source", "source", ADDRESS, make_pool(clock), {}).open()


async def test_a_broken_session_is_asked_again_only_where_harmless(clock: Clock) -> None:
    device = Device()
    fail = [1]

    def execute(message: bytes) -> bytes | None:
        if fail:
            fail.pop()
            raise RuntimeError("Connection was dropped by server.")
        return device(message)

    pool = make_pool(clock, visa=lambda r: Visa(execute))
    made = registry.create("symbol_source", "source", ADDRESS, pool, {})
    assert isinstance(made, SymbolSource)
    assert await made.questionable() == 2
    fail.append(1)
    with pytest.raises(BusFault, match="dropped"):
        await made.read_range(0, 1)


@given(st.lists(st.integers(0, 15), min_size=1, max_size=50), st.integers(0, 2**40), st.data())
def test_symbol_blocks(nibbles: list[int], first: int, draw: st.DataObject) -> None:
    block = answer_block(first, nibbles, run=3)
    got = unpack_symbols(block, "x")
    assert (got.nibbles.tolist(), got.first, got.run) == (nibbles, first, 3)
    bad = bytearray(block)
    bad[draw.draw(st.integers(0, len(bad) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(BusFault):
        unpack_symbols(bytes(bad), "x")
    with pytest.raises(BusFault):
        unpack_symbols(block[: draw.draw(st.integers(0, len(block) - 1))], "x")


@pytest.mark.parametrize("slots", [[], [-1, 2], [5, 5], [5, 4], [0, 2**32]])
def test_requests_that_cannot_be_said(slots: list[int]) -> None:
    with pytest.raises(ValueError, match="slots must be ascending"):
        pack_slots(np.array(slots, np.int64))


@pytest.mark.parametrize(("answer", "pilot"), [("0,0", None), ("16,10.0", Pilot(16, 10.0)), ("2,0.0", Pilot(2, 1.0))])
async def test_pilot_as_the_device_tells_it(clock: Clock, answer: str, pilot: Pilot | None) -> None:
    device = Device()
    made = source(clock, device)
    device.values["SYMB:PIL"] = answer
    assert await made.pilot() == pilot


@pytest.mark.parametrize("answer", ["1,10.0", "16.5,10.0", "-4,10.0", "16,-1.0", "16,41.0", "16,nan", "16", "yes,10"])
async def test_what_is_no_pilot_is_refused(clock: Clock, answer: str) -> None:
    device = Device()
    made = source(clock, device)
    device.values["SYMB:PIL"] = answer
    with pytest.raises(BusFault, match="source"):
        await made.pilot()
