from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.bus.tcp import MAX_BUFFER, TcpJson, TcpLine, split_json
from drivers.errors import BusFault, Refused, Timeout
from tests.drivers.fakes import Clock, Socket, make_pool

objects = st.dictionaries(
    st.text(max_size=5), st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=3)
)


@given(st.lists(objects, max_size=6), st.data())
def test_objects_survive_any_gluing_and_any_splitting(items: list[dict[str, Any]], draw: st.DataObject) -> None:
    stream = b""
    for item in items:
        stream += json.dumps(item, ensure_ascii=draw.draw(st.booleans())).encode() + draw.draw(
            st.sampled_from([b"", b"\x17", b"\x17\n", b" "])
        )
    buffer, found = bytearray(), []
    while stream:
        cut = draw.draw(st.integers(1, len(stream)))
        buffer += stream[:cut]
        stream = stream[cut:]
        found += split_json(buffer, b"\x17")
    assert len(found) == len(items)


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_garbage_costs_only_itself(before: bytes, after: bytes) -> None:
    good = {"label": "BiasCurrent", "value": [1, 2, 3]}
    buffer = bytearray(before + b"\x17" + json.dumps(good).encode() + b"\x17" + after)
    assert good in split_json(buffer, b"\x17")


async def test_every_exchange_has_its_own_connection(clock: Clock) -> None:
    answers = [[b'{"other":1}{"wan', b'ted":2}\x17{"wanted":99}\x17'], [b'{"wanted":'], [b'{"wanted":3}'], [b""]]
    sockets: list[Socket] = []

    def connect(host: str, port: int) -> Socket:
        assert (host, port) == ("10.0.0.2", 12000)
        answer = answers[len(sockets)]
        sockets.append(Socket(lambda sent: answer))
        return sockets[-1]

    pool = make_pool(clock, tcp=connect)
    link = TcpJson(pool.tcp("tcp:10.0.0.2:12000", "x"))
    take = lambda item: item.get("wanted")  # noqa: E731
    assert await link.ask([{"request": "wanted"}], take) == 2
    assert sockets[0].sent == [b'{"request": "wanted"}']
    with pytest.raises(Timeout, match=r"tcp:10.0.0.2:12000: no reply in time"):
        await link.ask([{}], take)
    sockets[0].feed = sockets[1].feed = [b"77}\x17"]  # comes late, to connections that are gone
    assert await link.ask([{}], take) == 3
    assert [s.closed for s in sockets] == [True, True, False]
    with pytest.raises(BusFault, match="the far end closed"):
        await link.ask([{}], take)
    assert pool.counters()["tcp:10.0.0.2:12000"].resyncs == 1
    await link.close()


async def test_refusals_and_floods(clock: Clock) -> None:
    flood = Socket(lambda sent: [b'{"a":1}', b"x" * (MAX_BUFFER + 1)])
    link = TcpJson(make_pool(clock, tcp=lambda h, p: flood).tcp("tcp:h:1", "x"))

    def refuse(item: dict[str, Any]) -> None:
        raise Refused("no")

    with pytest.raises(Refused):
        await link.ask([{}], refuse)
    with pytest.raises(BusFault, match="without a delimiter"):
        await link.ask([{}], lambda item: None)


async def test_an_answer_that_never_comes_ends_at_the_deadline(clock: Clock) -> None:
    class Chatty(Socket):
        def recv(self, bufsize: int, /) -> bytes:
            clock.t += 0.3
            return b'{"other":1}\x17'

    link = TcpJson(make_pool(clock, tcp=lambda h, p: Chatty()).tcp("tcp:h:1", "x"))
    with pytest.raises(Timeout, match="no such answer within 1 s"):
        await link.ask([{}], lambda item: None)


async def test_lines(clock: Clock) -> None:
    sock = Socket()
    line = TcpLine(make_pool(clock, tcp=lambda h, p: sock).tcp("tcp:h:1", "x"))
    assert await line.arrived() == []
    sock.feed = [b"1,2\n3,", b"4\n5"]
    assert await line.arrived() == [b"1,2", b"3,4"]
    sock.feed = [b",6\n"]
    assert await line.arrived() == [b"5,6"]
    await line.close()


async def test_a_refused_connection_is_a_bus_fault(clock: Clock) -> None:
    def connect(host: str, port: int) -> Socket:
        raise ConnectionRefusedError(111, "Connection refused")

    line = TcpLine(make_pool(clock, tcp=connect).tcp("tcp:h:1", "x"))
    with pytest.raises(BusFault, match=r"tcp:h:1: .*refused"):
        await line.arrived()
