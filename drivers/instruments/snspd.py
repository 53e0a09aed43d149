"""SNSPD bias controller, WebSQControl protocol: JSON over TCP and a stream of counts (reference hardware A7, B)."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from drivers.bus.pool import BusPool
from drivers.bus.tcp import TcpJson, TcpLine
from drivers.errors import BusFault, Refused, Timeout
from drivers.options import DriverOptions, identify, wrong_device
from drivers.quantity import Limits, Quantity
from drivers.roles import Identity

MIN_PERIOD_S = 0.01
BACKLOG_S = 0.02  # what a stream has kept arrives well within this time
LABELS = {"request": "labelProps", "value": "None"}


class SnspdOptions(DriverOptions):
    counts_address: str = Field(description="tcp:host:port of the counts stream")
    channels: tuple[str, ...] = Field(default=("DZ", "DX0", "DX1"), min_length=1)
    max_bias_a: float = Field(default=30e-6, gt=0)
    trigger_v: float | None = Field(default=None, description="V, of every channel, set at open; default: as it is")
    deadline_s: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _distinct(self) -> SnspdOptions:
        if len(set(self.channels)) != len(self.channels):
            raise ValueError("channels: names must be distinct")
        return self


class Snspd:
    """Role DetectorBank. Safe: no bias."""

    Options = SnspdOptions

    def __init__(self, name: str, address: str, buses: BusPool, options: SnspdOptions) -> None:
        self.name = name
        self.address = address
        self.channels = options.channels
        self._options = options
        self._clock = buses.clock
        self._json = TcpJson(buses.tcp(address, name))
        self._counts = TcpLine(buses.tcp(options.counts_address, name))
        self._counting = asyncio.Lock()
        limits = Limits("A", 0.0, options.max_bias_a, 0.0)
        self._bias = [Quantity(f"{name}.{channel}", limits) for channel in options.channels]
        self._period_ms = 0

    async def open(self) -> Identity:
        """Check the number of detectors, remove all bias, enable. Raises WrongDevice, Refused, BusFault, Timeout."""
        expected = f"SNSPD controller with at least {len(self.channels)} detectors"
        count = await identify(self.name, self.address, expected, self.label("NumberOfDetectors"))
        if not isinstance(count, int) or count < len(self.channels):
            raise wrong_device(self.name, self.address, expected, f"{count!r} detectors")
        await self.make_safe()
        if self._options.trigger_v is not None:
            await self._set("SetAllTriggerLevels", "TriggerLevel", [self._options.trigger_v * 1e3] * count)
        await self._set("DetectorEnable", "DetectorEnable", True)
        return Identity("snspd", self.address, f"SNSPD controller, {count} detectors")

    async def make_safe(self) -> None:
        """No bias current."""
        await self.set_bias([0.0] * len(self.channels))

    async def close(self) -> None:
        await self._json.close()
        await self._counts.close()

    async def known_answer(self) -> bool:
        """See the role Probed."""
        count = await self.label("NumberOfDetectors")
        return isinstance(count, int) and count >= len(self.channels)

    async def check_registers(self) -> list[str]:
        """See the role Checked: bias currents and the enable as the driver set them."""
        wrong = []
        wanted = {"BiasCurrent": [q.value * 1e6 for q in self._bias], "DetectorEnable": True}
        for label, value in wanted.items():
            if not _equal(found := await self.label(label), value):
                wrong.append(f"{label} is {found!r}, not {value!r}")
        return wrong

    async def set_bias(self, bias_a: Sequence[float]) -> None:
        """One current a channel. Raises OutOfRange (nothing written), Refused, BusFault, Timeout."""
        if len(bias_a) != len(self._bias):
            raise ValueError(f"{self.name} has {len(self._bias)} channels, not {len(bias_a)}")
        now = self._clock()
        currents = [q.admit(value, now) for q, value in zip(self._bias, bias_a, strict=True)]
        await self._set("SetAllBiasCurrents", "BiasCurrent", [c * 1e6 for c in currents])
        for quantity, value in zip(self._bias, currents, strict=True):
            quantity.wrote(value, now)

    def output(self, channel: str) -> Quantity:
        """Limits and last value of a detector's bias. Raises ValueError for a name that it does not have."""
        return self._bias[self.channels.index(channel)]

    def bias(self) -> tuple[float, ...]:
        """Last currents written, A."""
        return tuple(q.value for q in self._bias)

    async def read_bias_voltage(self) -> tuple[float, ...]:
        """V per channel. Raises Refused, BusFault, Timeout."""
        answer = await self._ask([{"request": "BiasVoltage"}], "BiasVoltage", harmless=True)
        values = self._numbers("BiasVoltage", answer)
        return tuple(values[: len(self.channels)])

    async def read_rates(self, period_s: float) -> npt.NDArray[np.float64]:
        """See the role. The period is rounded to 1 ms, 10 ms at least.

        The stream is joined anew. What it gives at once is a backlog, the line after that belongs to a period that had
        begun before, the next one is used. Raises BusFault, Timeout, Refused.
        """
        async with self._counting:
            period = max(MIN_PERIOD_S, period_s)
            await self._set_period(period)
            try:
                line = await self._fresh_line(period)
            finally:
                await self._counts.close()
        return np.array(self._counts_of(line)) / (self._period_ms * 1e-3)

    async def label(self, label: str) -> Any:
        """The value of a property of the controller. Raises Refused, BusFault, Timeout."""
        return await self._ask([LABELS], label, harmless=True)

    async def _set_period(self, period_s: float) -> None:
        milliseconds = round(period_s * 1e3)
        if milliseconds != self._period_ms:
            await self._set("SetMeasurementPeriod", "InptMeasurementPeriod", milliseconds)
            self._period_ms = milliseconds

    async def _fresh_line(self, period_s: float) -> bytes:
        await self._counts.arrived(fresh=True)
        await asyncio.sleep(BACKLOG_S)
        await self._counts.arrived()
        lines: list[bytes] = []
        for _ in range(16):
            lines += [line for line in await self._counts.arrived() if line.strip()]
            if len(lines) >= 2:
                return lines[1]
            await asyncio.sleep(period_s / 4)
        self._period_ms = 0  # the controller may have been restarted with another period
        raise Timeout(f"{self.name} at {self._options.counts_address}: {len(lines)} lines in {4 * period_s:.3g} s")

    def _counts_of(self, line: bytes) -> list[float]:
        """Counts per channel of `time,count,count,...`."""
        try:
            values = [float(x) for x in line.decode("ascii").strip().split(",")]
        except ValueError:
            values = []
        if len(values) <= len(self.channels):
            raise BusFault(f"{self.name} at {self._options.counts_address}: not a line of counts: {line!r}")
        return values[1 : 1 + len(self.channels)]

    async def _set(self, command: str, label: str, value: Any) -> None:
        """Set, then read all properties and compare: the command itself has no reply that could be relied on."""
        request = {"command": command, "label": label, "value": value}
        held = await self._ask([request, LABELS], label, harmless=True)
        if not _equal(held, value):
            raise Refused(f"{self.name} at {self.address}: {label} is {held!r} after {value!r} was set")

    async def _ask(self, requests: list[dict[str, Any]], label: str, *, harmless: bool) -> Any:
        wants_properties = requests[-1] == LABELS

        def take(item: dict[str, Any]) -> tuple[Any] | None:
            for key, content in _labelled(item):
                if "Error" in key:
                    raise Refused(f"{self.name} at {self.address}: {key}: {json.dumps(content)[:200]}")
                if key != label:
                    continue
                if isinstance(content, Mapping) and "value" in content:
                    return (content["value"],)
                # A bare value is a broadcast, which may be older than the request, or the reply to another request.
                if not wants_properties:
                    return (content,)
            return None

        (value,) = await self._json.ask(requests, take, deadline_s=self._options.deadline_s, harmless=harmless)
        return value

    def _numbers(self, label: str, value: Any) -> list[float]:
        if not isinstance(value, list) or len(value) < len(self.channels) or not all(map(_is_number, value)):
            raise BusFault(f"{self.name} at {self.address}: {label} is {value!r}")
        return [float(x) for x in value]


def _labelled(item: dict[str, Any]) -> list[tuple[str, Any]]:
    """(label, content) pairs of either form: {"label": L, "value": content} or {L: content, ...}."""
    if isinstance(item.get("label"), str):
        return [(item["label"], item.get("value"))]
    return list(item.items())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _equal(held: Any, wanted: Any) -> bool:
    """Equal as far as was asked: a controller with more detectors than we use holds more values."""
    if isinstance(wanted, list):
        return isinstance(held, list) and len(held) >= len(wanted) and all(map(_equal, held, wanted))
    if _is_number(wanted):
        return _is_number(held) and math.isclose(held, wanted, rel_tol=1e-4, abs_tol=1e-3)
    return bool(held == wanted)
