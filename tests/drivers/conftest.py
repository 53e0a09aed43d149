"""A clock moved by hand; drivers' pauses move it instead of taking time."""

from __future__ import annotations

import asyncio

import pytest

from tests.drivers.fakes import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    hand = Clock()
    yield_to_loop = asyncio.sleep

    async def sleep(delay: float, result: object = None) -> object:
        hand.t += delay
        await yield_to_loop(0)
        return result

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return hand
