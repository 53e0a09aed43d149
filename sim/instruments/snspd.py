"""Controller of the nanowire detectors: JSON on one TCP port, a stream of counts on another.

After Single Quantum's WebSQControl and its public client: requests come without a delimiter, replies end in 0x17;
answers to `labelProps` map a label to an object with `value`, broadcasts map it to the bare value; errors carry a label
with "Error" in it. Counts: a CSV line a measurement period, time first. Not emulated: the automatic bias search.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sim.clock import SimClock
from sim.instruments.stream import Replies
from sim.trouble import Trouble

CHANNELS = 3
DELIMITER = b"\x17"
SHORTEST_PERIOD_MS = 10.0
LONGEST_PERIOD_MS = 10_000.0
HIGHEST_BIAS_UA = 50.0
PULSE_MV = 400.0
MAX_BUFFER = 1 << 16
MAX_LINES = 8


class DetectorPort(Protocol):
    """The detectors' part of `sim.ports.BobPort`."""

    def set_detector_bias(self, channel: int, amperes: float) -> None: ...
    def detector_voltage(self, channel: int) -> float: ...
    def detector_rates(self, period_s: float) -> npt.NDArray[np.float64]: ...


class WrongRequest(Exception):
    """A request that is answered with an error label."""


class SnspdController:
    """The command port: feed it the client's bytes, take its messages. The settings hold for both ports."""

    def __init__(self, clock: SimClock, port: DetectorPort) -> None:
        self._clock = clock
        self._port = port
        self._replies = Replies(clock)
        self.trouble = Trouble(self._drive)
        self._shown: dict[str, dict[str, Any]] = {}
        self._commands: dict[str, Callable[[Any], None]] = {
            "SetMeasurementPeriod": self._set_period,
            "SetAllBiasCurrents": self._set_biases,
            "SetAllTriggerLevels": self._set_triggers,
            "DetectorEnable": self._set_enabled,
        }
        self.power_on_reset()

    def power_on_reset(self) -> None:
        """Detectors off, bias 0."""
        self._text = b""
        self._replies.clear()
        self._biases_ua = [0.0] * CHANNELS
        self._triggers_mv = [100.0] * CHANNELS
        self._enabled = False
        self.period_s = 0.1
        self._emitted = self._clock.now()
        self._drive()

    def _drive(self) -> None:
        for channel, asked in enumerate(self._biases_ua):
            microamperes = 0.0 if self.trouble.has("dead", channel) else self._actual_ua(channel, asked)
            self._port.set_detector_bias(channel, microamperes * 1e-6 if self._enabled else 0.0)

    def _actual_ua(self, channel: int, asked: float) -> float:
        return max(0.0, asked + self.trouble.value("offset", channel, default=3.0))

    # --- command port --------------------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        return self._replies.due

    def take(self, until: float | None = None) -> bytes:
        return self._replies.take(until)

    def feed(self, data: bytes) -> None:
        """Bytes from the client; objects may come joined or in pieces."""
        self._text += data
        decoder = json.JSONDecoder()
        while True:
            text = self._text.lstrip(b" \r\n\t\x17")
            if not text:
                break
            try:
                message, end = decoder.raw_decode(text.decode("utf-8"))
            except (json.JSONDecodeError, UnicodeDecodeError):
                self._text = self._unfinished(text)
                return
            self._text = text.decode("utf-8")[end:].encode("utf-8")
            self._message(message)
        self._text = b""

    def _unfinished(self, text: bytes) -> bytes:
        """What to keep of text that is no JSON (yet)."""
        if text.startswith(b"{") and len(text) < MAX_BUFFER and text.count(b"{") > text.count(b"}"):
            return text
        self._say("Error", "not JSON")
        return b""

    def _say(self, label: str, value: Any) -> None:
        self._replies.put(json.dumps({"label": label, "value": value}).encode("utf-8") + DELIMITER)

    def _message(self, message: Any) -> None:
        try:
            if not isinstance(message, dict):
                raise WrongRequest("an object is expected")
            if "command" in message:
                self._command(str(message["command"]), message.get("value"))
            elif "request" in message:
                self._request(str(message["request"]))
            else:
                raise WrongRequest("neither command nor request")
        except WrongRequest as error:
            self._say("Error", str(error))

    def _command(self, name: str, value: Any) -> None:
        handler = self._commands.get(name)
        if handler is None:
            raise WrongRequest(f"unknown command {name}")
        handler(value)

    def _request(self, name: str) -> None:
        labels = self._shown if self._shown and self.trouble.has("frozen") else self._labels()
        self._shown = labels
        if name == "labelProps":
            for label, properties in labels.items():
                self._say(label, properties)
        elif name in labels:
            self._say(name, labels[name]["value"])
        else:
            raise WrongRequest(f"unknown request {name}")

    def _labels(self) -> dict[str, dict[str, Any]]:
        period = {"value": self.period_s * 1e3, "unit": "ms", "bounds": [SHORTEST_PERIOD_MS, LONGEST_PERIOD_MS]}
        return {
            "NumberOfDetectors": {"value": CHANNELS},
            "InptMeasurementPeriod": period,
            "BiasCurrent": {"value": self._biases_ua, "unit": "uA", "bounds": [0.0, HIGHEST_BIAS_UA]},
            "TriggerLevel": {"value": self._triggers_mv, "unit": "mV", "bounds": [-1000.0, 1000.0]},
            "DetectorEnable": {"value": self._enabled},
            "BiasVoltage": {"value": [self._port.detector_voltage(c) for c in range(CHANNELS)], "unit": "V"},
        }

    def _set_period(self, value: Any) -> None:
        milliseconds = _number(value)
        if not SHORTEST_PERIOD_MS <= milliseconds <= LONGEST_PERIOD_MS:
            raise WrongRequest(f"measurement period {milliseconds} ms is not in 10 to 10000")
        self.period_s = milliseconds * 1e-3
        self._emitted = self._clock.now()
        self._say("InptMeasurementPeriod", milliseconds)

    def _set_biases(self, value: Any) -> None:
        self._biases_ua = _numbers(value, 0.0, HIGHEST_BIAS_UA)
        self._drive()
        self._say("BiasCurrent", self._biases_ua)

    def _set_triggers(self, value: Any) -> None:
        self._triggers_mv = _numbers(value, -1000.0, 1000.0)
        self._say("TriggerLevel", self._triggers_mv)

    def _set_enabled(self, value: Any) -> None:
        if not isinstance(value, bool):
            raise WrongRequest("DetectorEnable takes true or false")
        self._enabled = value
        self._drive()
        self._say("DetectorEnable", value)

    # --- counts port ---------------------------------------------------------------------------------------------

    @property
    def next_line(self) -> float:
        """When the running measurement period ends, s of the clock."""
        return self._emitted + self.period_s

    def stream_lines(self, now: float) -> bytes:
        """A line for each period that has ended by `now`, the last eight at most: what is older nobody has read."""
        periods = int((now - self._emitted) / self.period_s + 1e-9)
        if periods <= 0:
            return b""
        begun = self._emitted
        self._emitted += periods * self.period_s
        lines = [self._line(begun + i * self.period_s) for i in range(max(1, periods - MAX_LINES + 1), periods + 1)]
        return b"".join(lines)

    def _line(self, time: float) -> bytes:
        rates = self._port.detector_rates(self.period_s)
        heard = [0.0 < v < PULSE_MV and not self.trouble.has("silent", c) for c, v in enumerate(self._triggers_mv)]
        counts = [round(float(r) * self.period_s) if on else 0 for r, on in zip(rates, heard, strict=True)]
        return (f"{time:.6f}," + ",".join(map(str, counts)) + "\n").encode("ascii")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WrongRequest("a number is expected")
    return float(value)


def _numbers(value: Any, low: float, high: float) -> list[float]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != CHANNELS:
        raise WrongRequest(f"a list of {CHANNELS} numbers is expected")
    numbers = [_number(v) for v in value]
    if not all(low <= n <= high for n in numbers):
        raise WrongRequest(f"values are not in {low} to {high}")
    return numbers
