from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.server.busproto import (
    HANG,
    MAX_BODY,
    Frames,
    I2cMessage,
    Open,
    Operation,
    ProtocolError,
    Rdwr,
    Reply,
    Request,
    Smbus,
    Spi,
    SpiTransfer,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)

byte = st.integers(0, 255)
address = st.integers(0, 0x3FF)
names = st.text(max_size=40)


@st.composite
def messages(draw: st.DrawFn) -> I2cMessage:
    if draw(st.booleans()):
        return I2cMessage(draw(address), 1, draw(st.integers(0, 8192)))
    data = draw(st.binary(max_size=64))
    return I2cMessage(draw(address), draw(st.sampled_from([0, 0x4000])), len(data), data)


@st.composite
def transfers(draw: st.DrawFn) -> SpiTransfer:
    tx = draw(st.none() | st.binary(max_size=64))
    length = draw(st.integers(0, 4096)) if tx is None else len(tx)
    return SpiTransfer(length, draw(st.integers(1, 2**32 - 1)), draw(st.integers(0, 65535)), 8, draw(st.booleans()), tx)


operations: st.SearchStrategy[Operation] = st.one_of(
    st.just(Open()),
    st.builds(Smbus, address, st.booleans(), byte, st.integers(0, 8), st.binary(max_size=34), st.booleans()),
    st.builds(Rdwr, st.lists(messages(), max_size=42).map(tuple)),
    st.builds(Spi, st.integers(0, 3), st.lists(transfers(), max_size=8).map(tuple)),
)
requests = st.builds(Request, names, names, operations)


@given(st.lists(requests, max_size=4), st.lists(st.integers(1, 60), max_size=20))
def test_requests_survive_any_cut_of_the_stream(sent: list[Request], cuts: list[int]) -> None:
    stream = b"".join(map(encode_request, sent))
    frames, got = Frames(), []
    for cut in [*cuts, len(stream)]:
        got += [decode_request(body) for body in frames.feed(stream[:cut])]
        stream = stream[cut:]
    assert got == sent


@given(st.integers(HANG, 2**31 - 1), st.binary(max_size=100))
def test_replies_round_trip(status: int, payload: bytes) -> None:
    (body,) = Frames().feed(encode_reply(Reply(status, payload)))
    assert decode_reply(body) == Reply(status, payload)


@given(st.binary(max_size=80))
def test_garbage_is_a_protocol_error_or_a_request_that_encodes_again(body: bytes) -> None:
    try:
        request = decode_request(body)
    except ProtocolError:
        return
    (again,) = Frames().feed(encode_request(request))
    assert decode_request(again) == request


@given(requests, st.data())
def test_a_truncated_or_extended_request_is_refused(request: Request, data: st.DataObject) -> None:
    (body,) = Frames().feed(encode_request(request))
    with pytest.raises(ProtocolError):
        decode_request(body[: data.draw(st.integers(0, len(body) - 1))])
    with pytest.raises(ProtocolError):
        decode_request(body + b"\0")


def test_oversized_frames_names_and_short_replies_are_refused() -> None:
    with pytest.raises(ProtocolError, match="frame of"):
        Frames().feed((MAX_BODY + 1).to_bytes(4, "little"))
    with pytest.raises(ProtocolError, match="255"):
        encode_request(Request("x" * 256, "/dev/i2c-1", Open()))
    with pytest.raises(ProtocolError, match="status"):
        decode_reply(b"\0\0")
