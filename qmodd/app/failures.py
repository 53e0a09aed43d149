"""Turns whatever ended a session into one sentence for an operator."""

from __future__ import annotations

from collections.abc import Iterator

from calibration.context import CalibrationRefused, LightRefused
from calibration.fit import FitRefused
from drivers.errors import DriverError
from qmodd.control.loop import LoopFault
from qmodd.module import BringUpFailed
from qmodd.safety import SafetyTripped, WatchdogStarved


class Interrupted(Exception):
    """The session ends on purpose: a command, or a lock. `kind` is the activity's reason class."""


class LoopGaveUp(Exception):
    """A control loop failed again after its restart; the message names the loop and the reason."""


class NotReady(Exception):
    """A check of the start-up failed; the message names check, value and limit."""


class SelftestFailed(NotReady):
    """A self-test found a part that is broken: no keys before its level has passed. The message names the suspects."""


EXPECTED = (
    DriverError,
    BringUpFailed,
    CalibrationRefused,
    FitRefused,
    LightRefused,
    WatchdogStarved,
    SafetyTripped,
    Interrupted,
    LoopFault,
    LoopGaveUp,
    NotReady,
)


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def reason(error: BaseException) -> str:
    """One line: every distinct cause, the first first. A bug is named as one, with its type."""
    said: list[str] = []
    for leaf in leaves(error):
        text = str(leaf) if isinstance(leaf, EXPECTED) else f"internal error {type(leaf).__name__}: {leaf}"
        if text not in said:
            said.append(text)
    return "; ".join(said)[:480]


def interrupted(error: BaseException) -> Interrupted | None:
    return next((leaf for leaf in leaves(error) if isinstance(leaf, Interrupted)), None)
