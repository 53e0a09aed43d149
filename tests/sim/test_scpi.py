from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import scpi
from sim.scpi import Block, ScpiError, ScpiInstrument, Unit, block, split_message


def test_block_layout() -> None:
    assert block(b"") == b"#10"
    assert block(b"x" * 12) == b"#212" + b"x" * 12


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4))
def test_blocks_may_hold_any_byte(payloads: list[bytes]) -> None:
    message = b";".join(b"SYMB:READ? " + block(p) for p in payloads) + b"\n"
    assert split_message(message) == [Unit(b"SYMB:READ?", (Block(p),)) for p in payloads]


@given(st.binary(max_size=60))
def test_any_message_is_cut_or_refused(message: bytes) -> None:
    with contextlib.suppress(ScpiError):
        units = split_message(message)
        assert all(unit.header for unit in units)


def test_parameters_strings_and_separators() -> None:
    assert split_message(b'A 1, 2 ;; B "x;y",#13abc, 7\n') == [
        Unit(b"A", (b"1", b"2")),
        Unit(b"B", (b'"x;y"', Block(b"abc"), b"7")),
    ]
    assert split_message(b"\n") == []
    with pytest.raises(ScpiError):
        split_message(b"A #15abc")


class Toy(ScpiInstrument):
    def __init__(self) -> None:
        super().__init__("A,B,C,1")
        self.seen: list[object] = []
        self.commands.add("SYMBol:PROBability:BASis", lambda v: self.seen.append(scpi.number(v)), 1)
        self.commands.add("SYMBol:PROBability:DECoy", lambda v: self.seen.append(scpi.integer(v)), 1)
        self.commands.add("INPut#:COUPling?", lambda n: f"AC{n}")
        self.commands.add("OUTPut", lambda v: self.seen.append(scpi.boolean(v)), 1)
        self.commands.add("NAMe", lambda v: self.seen.append(scpi.word(v)), 1)


@pytest.mark.parametrize("header", ["SYMB:PROB:BAS", "symbol:probability:basis", ":Symb:PROBability:bas"])
def test_long_and_short_headers(header: str) -> None:
    toy = Toy()
    assert toy.execute(f"{header} 0.25\n".encode()) is None
    assert toy.seen == [0.25]


def test_headers_after_a_semicolon_are_relative_or_absolute() -> None:
    toy = Toy()
    assert toy.execute(b"SYMB:PROB:BAS 1;DEC 2;*OPC?;SYMB:PROB:DEC 3;:INP2:COUP?;INP:COUP?\n") == b"1;AC2;AC1\n"
    assert toy.seen == [1.0, 2, 3]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"FOO 1", -113),
        (b"SYMBO:PROB:BAS 1", -113),
        (b"SYMB:PROB:BAS", -109),
        (b"SYMB:PROB:BAS 1,2", -108),
        (b"SYMB:PROB:BAS x", -104),
        (b"SYMB:PROB:BAS nan", -104),
        (b"SYMB:PROB:BAS #11a", -104),
        (b"SYMB:PROB:DEC 1.5", -104),
        (b"NAM #11a", -104),
        (b"A #19x", -161),
    ],
)
def test_errors_are_queued(message: bytes, code: int) -> None:
    toy = Toy()
    assert toy.execute(message + b"\n") is None
    answer = toy.execute(b"SYST:ERR?\n")
    assert answer is not None
    assert answer.startswith(b"%d," % code)
    assert toy.execute(b"SYST:ERR:NEXT?\n") == b'0,"No error"\n'


def test_queue_overflow_status_and_clear() -> None:
    toy = Toy()
    assert toy.execute(b"*STB?\n") == b"0\n"
    for _ in range(20):
        toy.execute(b"FOO\n")
    assert toy.execute(b"*STB?\n") == b"4\n"
    answers = [toy.execute(b"SYST:ERR?\n") for _ in range(16)]
    assert answers[-1] == b'-350,"Queue overflow"\n'
    toy.execute(b"FOO\n*CLS\n")
    assert toy.execute(b"*RST;*IDN?\n") == b"A,B,C,1\n"


def test_words_and_booleans() -> None:
    toy = Toy()
    toy.execute(b"OUTP ON;OUTP off;OUTP 2;OUTP 0;NAM key\n")
    assert toy.seen == [True, False, True, False, "KEY"]
