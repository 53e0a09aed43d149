"""The line of stations: no block overtakes another, one at a station, several on the line; and everybody's mail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.keys.protocol import XErrors
from qmodd.keys.stations import Line, Mail, Station
from sim.loop import run_simulated

Durations = st.lists(st.lists(st.integers(0, 5), min_size=5, max_size=5), min_size=1, max_size=6)


@given(Durations, st.sets(st.integers(0, 5)))
def test_blocks_keep_their_order_and_stations_their_block(durations: list[list[int]], failing: set[int]) -> None:
    began: dict[Station, list[int]] = {s: [] for s in Station}
    inside: dict[Station, int] = dict.fromkeys(Station, 0)

    async def block(line: Line, number: int, seconds: list[int]) -> None:
        async with line.visit() as visit:
            for station in Station:
                await visit.enter(station)
                if station > 0:
                    inside[Station(station - 1)] -= 1
                began[station].append(number)
                inside[station] += 1
                assert inside[station] == 1
                await asyncio.sleep(seconds[station])
                if number in failing and station is Station.VERIFY:
                    inside[station] -= 1
                    raise ValueError
            inside[Station.FINISH] -= 1

    async def main(loop: Any) -> float:
        line = Line()
        await asyncio.gather(*(block(line, n, d) for n, d in enumerate(durations)), return_exceptions=True)
        return float(loop.time())

    run_simulated(main)
    for station, numbers in began.items():
        well = [n for n in range(len(durations)) if station <= Station.VERIFY or n not in failing]
        assert numbers == well
    assert not any(inside.values())


def test_a_line_works_on_several_blocks_at_once() -> None:
    async def block(line: Line) -> None:
        async with line.visit() as visit:
            for station in Station:
                await visit.enter(station)
                await asyncio.sleep(1.0)

    async def main(loop: Any) -> None:
        line, begun = Line(), loop.time()
        await asyncio.gather(*(block(line) for _ in range(10)))
        assert loop.time() - begun == pytest.approx(10 + len(Station) - 1)

    run_simulated(main)


async def test_a_block_never_goes_back() -> None:
    async with Line().visit() as visit:
        await visit.enter(Station.VERIFY)
        with pytest.raises(RuntimeError, match="from VERIFY to OPEN"):
            await visit.enter(Station.OPEN)


async def test_mail_goes_to_its_block_and_strays_are_counted() -> None:
    mail = Mail()
    mail.open(1, 0)
    assert mail.post(XErrors(1, 0, (1,)), b"a") == 1
    assert mail.post(XErrors(1, 0, (2,)), b"b") == 2
    assert [mail.post(XErrors(2, 0, ()), b"") for _ in range(3)] == [1, 2, 3]
    assert (await mail.box(1, 0).get())[1] == b"a"
    mail.open(1, 1)
    assert mail.post(XErrors(2, 0, ()), b"") == 1
    mail.close(1, 0)
    assert mail.post(XErrors(1, 0, ()), b"") == 2
