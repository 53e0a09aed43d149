"""Which alarms a session's end stands for: by the kind of error, and by what loops say in their reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable

from calibration.context import CalibrationRefused, LightRefused
from calibration.fit import FitRefused
from drivers.errors import DriverError
from qmodd.app.failures import LoopGaveUp, NotReady, SelftestFailed, leaves
from qmodd.control.loop import LoopFault
from qmodd.module import BringUpFailed
from qmodd.safety import SafetyTripped, WatchdogStarved

# What a reason says, whatever kind of error carries it. A loop that gives up hands on its reason as text only.
SAID = (
    (re.compile(r"the cover is open"), "cover-open"),
    (re.compile(r"interlock (loop )?is open|interlock loop"), "interlock-open"),
    (re.compile(r"heater .*(: open circuit| is open:)"), "heater-open"),
    (re.compile(r"does not emit|no emission|fatal alarm after enabling"), "laser-dark"),
    (re.compile(r"latched \d+ times within"), "detectors-latching"),
)
TEMPERATURE = re.compile(
    r"CHECK POLARITY|the TEC controller|temperature controller|thermistor reads|heat sink at"
    r"|not at its temperature|not stable at|temperature loop"
)
# A loop that reads on a bus only to see whether it answers.
HEARTBEAT = re.compile(r"loop bus ")


def alarms_of(error: BaseException, addresses: Iterable[str]) -> dict[str, str]:
    """Alarm and reason of every leaf of the error, `addresses` being those of the module's devices. The first reason
    for an alarm stands."""
    known = tuple(addresses)
    found: dict[str, str] = {}
    for leaf in leaves(error):
        found.setdefault(_alarm(leaf, known), str(leaf) or type(leaf).__name__)
    return found


def _alarm(error: BaseException, addresses: tuple[str, ...]) -> str:
    text = str(error)
    if isinstance(error, SafetyTripped):
        return error.alarm
    if isinstance(error, SelftestFailed):
        return "selftest-failed"
    for pattern, alarm in SAID:
        if pattern.search(text):
            return alarm
    if isinstance(error, BringUpFailed | DriverError):
        return "device-fault"
    if isinstance(error, LightRefused):
        return "peer-not-ready"
    named = any(address in text for address in addresses)
    if isinstance(error, LoopGaveUp | LoopFault | WatchdogStarved) and (named or HEARTBEAT.match(text)):
        return "device-fault"
    if isinstance(error, WatchdogStarved):
        return "device-fault" if "port expander" in text else "watchdog-tripped"
    if TEMPERATURE.search(text):
        return "temperature-not-held"
    if isinstance(error, NotReady):
        return "selftest-failed"
    if isinstance(error, CalibrationRefused | FitRefused):
        return "calibration-refused"
    return "loop-failed" if isinstance(error, LoopGaveUp | LoopFault) else "internal-error"
