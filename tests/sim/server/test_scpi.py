from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sim.server.scpi import MessageSplitter, block_end, terminated


def block(data: bytes) -> bytes:
    count = str(len(data)).encode()
    return b"#%d%s%s" % (len(count), count, data)


words = st.from_regex(rb"[A-Z:?*]{1,8}( [0-9.]{1,5})?", fullmatch=True)
quoted = st.text("abc#1\n;", max_size=6).map(lambda t: b'"' + t.encode() + b'"')
parts = st.one_of(words, quoted, st.binary(max_size=30).map(block))
whole = st.lists(parts, min_size=1, max_size=4).map(b" ".join)


@given(st.lists(whole, max_size=4), st.integers(1, 7))
@example([b"SYMB:READ? #15\n\n#\n\r"], 1)
def test_blocks_and_strings_survive_any_cut(messages: list[bytes], step: int) -> None:
    stream = b"".join(m + b"\n" for m in messages)
    splitter, got = MessageSplitter(), []
    for at in range(0, len(stream), step):
        got += splitter.feed(stream[at : at + step])
    assert got == messages


def test_other_uses_of_the_number_sign() -> None:
    assert MessageSplitter().feed(b"*IDN?\r\nX #0ab\n#H1F\n") == [b"*IDN?\r", b"X #0ab", b"#H1F"]


def test_a_message_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 10"):
        MessageSplitter(10).feed(b"x" * 11)


@pytest.mark.parametrize("message", [b"", b"x", b"#", b"#0", b"#2", b"#21", b"#2x1"])
def test_no_block(message: bytes) -> None:
    assert block_end(message, 0) is None


@pytest.mark.parametrize(
    ("response", "sent"),
    [
        (b"1", b"1\n"),
        (b"1\n", b"1\n"),
        (b"#12ab", b"#12ab\n"),
        (b"#12ab\n", b"#12ab\n"),
        (b"#12a\n", b"#12a\n\n"),
        (b"#H1F", b"#H1F\n"),
        (b"", b"\n"),
    ],
)
def test_every_response_ends_with_one_newline_of_its_own(response: bytes, sent: bytes) -> None:
    assert terminated(response) == sent
