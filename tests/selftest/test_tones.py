"""Pilot tones: what the regression finds of a made-up response, and what it does not invent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.selftest.tones import Actuator, exchanged, regress, sound, walsh


@given(st.integers(1, 30))
def test_codes_are_orthogonal_to_one_another_and_to_a_constant(actuators: int) -> None:
    codes = walsh(actuators)
    assert codes.shape[0] == actuators
    assert np.array_equal(codes @ codes.T, codes.shape[1] * np.eye(actuators))
    assert not codes.sum(axis=1).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 5))
def test_regression_finds_the_response_through_noise_and_drift(seed: int, actuators: int, monitors: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.tile(walsh(actuators), 4)
    gain = rng.normal(size=(actuators, monitors))
    steps = codes.shape[1]
    drift = np.outer(np.linspace(-1.0, 1.0, steps), rng.normal(size=monitors))
    y = 3.0 + codes.T @ gain + drift + 0.01 * rng.normal(size=(steps, monitors))
    names = tuple(f"a{i}" for i in range(actuators)), tuple(f"m{i}" for i in range(monitors))
    found = regress(*names, codes, y)
    assert np.max(np.abs(found.gain - gain) / found.sigma) < 8.0
    assert np.all(found.sigma < 0.02)


def test_a_dead_actuator_is_not_significant_and_everything_is_put_back() -> None:
    at = {"a": 1.0, "b": 2.0}
    rng = np.random.default_rng(1)

    def actuator(name: str) -> Actuator:
        async def write(x: float) -> None:
            at[name] = x

        return Actuator(name, f"heater {name}", write, at[name], 0.1, "W")

    async def read() -> Mapping[str, float]:
        return {"m": 5.0 * at["a"] + 1e-3 * float(rng.normal())}

    async def sleep(_s: float) -> None:
        return None

    bench: Any = SimpleNamespace(sleep=sleep)
    found = asyncio.run(sound(bench, [actuator("a"), actuator("b")], read))
    assert found.significant("a", "m")
    assert not found.significant("b", "m")
    assert abs(found.of("a", "m")[0] - 0.5) < 5e-3
    assert at == {"a": 1.0, "b": 2.0}
    assert found.figure("tones").values[0][0] == found.of("a", "m")[0]


def test_exchanged_needs_both_to_move_the_others_monitor() -> None:
    own = {"a": "p", "b": "q", "c": "r"}
    sound_gain = {"a": {"p": 1.0, "q": 0.02}, "b": {"q": 1.0, "p": 0.02}, "c": {"r": 1.0}}
    assert exchanged(sound_gain, own) == []
    crossed = {"a": {"p": 0.02, "q": 1.0}, "b": {"q": 0.02, "p": 1.0}, "c": {"r": 1.0}}
    assert exchanged(crossed, own) == [("a", "b")]
    dead = {"a": {"p": 0.0, "q": 0.0}, "b": {"q": 1.0, "p": 0.02}, "c": {"r": 1.0}}
    assert exchanged(dead, own) == []
