"""Who is blamed for light that is missing: the path, the photodiode or the detector."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.selftest.receiver_budget import DETECTORS, PHOTODIODES, USUAL_DB, Budget, budget

OUTPUTS = {"path z": (0,), "path x": (1, 2)}
SPREAD = st.lists(st.floats(-0.25, 0.25), min_size=6, max_size=6)
# Losses of which nothing that is left would be a healthy module's.
LOSS = st.floats(2.6, 20.0)


def failed(b: Budget) -> set[str]:
    return {part for part, (value, low, high) in b.parts().items() if not low <= value <= high}


def seen(spread: list[float], part: str, loss: float) -> Budget:
    """A receiver with the spread of an individual and one loss."""
    tap, detector = USUAL_DB + np.array(spread[:3]), -58.0 + np.array(spread[3:])
    if part == "path input":
        tap = tap - loss
    elif part == "photodiode pb0":
        tap = tap + loss
    elif part in OUTPUTS:
        for k in OUTPUTS[part]:
            tap[k] -= loss
    elif part in PHOTODIODES:
        # The photodiode reads less; the clicks stay, so that there are more of them for its light.
        k = PHOTODIODES.index(part)
        tap[k] -= loss
        detector[k] += loss
    elif part in DETECTORS:
        detector[DETECTORS.index(part)] -= loss
    return budget(tap, detector)


@given(SPREAD)
def test_a_healthy_receiver_blames_nobody(spread: list[float]) -> None:
    assert failed(seen(spread, "", 0.0)) == set()


@pytest.mark.parametrize(
    "part", ["path input", "photodiode pb0", "path z", "path x", *PHOTODIODES, *DETECTORS], ids=lambda p: p
)
@given(spread=SPREAD, loss=LOSS)
def test_one_loss_blames_its_part_alone(part: str, spread: list[float], loss: float) -> None:
    assert failed(seen(spread, part, loss)) == {part}


def test_a_detector_that_sees_nothing_is_to_blame_itself() -> None:
    b = budget(USUAL_DB, np.array([-58.0, -220.0, -58.0]))
    assert failed(b) == {"detector DX0"}
