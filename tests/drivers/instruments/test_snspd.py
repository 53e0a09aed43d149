from __future__ import annotations

import json
from typing import Any

import pytest

from drivers import registry
from drivers.errors import BusFault, OutOfRange, Refused, Timeout, WrongDevice
from drivers.instruments.snspd import Snspd
from tests.drivers.fakes import Clock, Socket, make_pool


class Controller:
    """Requests may come glued together, replies go out glued or delimited. Two message forms."""

    def __init__(self, flat: bool = False) -> None:
        self.flat = flat
        self.labels: dict[str, Any] = {"NumberOfDetectors": 4, "BiasCurrent": [9.0] * 4, "DetectorEnable": False}
        self.labels |= {"InptMeasurementPeriod": 100, "TriggerLevel": [0.0] * 4}
        self.voltage: Any = [0.001, 0.002, 0.003, 0.004]
        self.error: str | None = None
        self.broadcast = b""
        self.take_sets = True
        self.log: list[dict[str, Any]] = []

    def __call__(self, sent: bytes) -> list[bytes]:
        request = json.loads(sent)
        self.log.append(request)
        if "command" in request:
            if self.error:
                return [self._one("ErrorMessage", self.error, bare=True)]
            if self.take_sets and "label" in request:
                self.labels[request["label"]] = request["value"]
            return [self.broadcast] if self.broadcast else []
        if request["request"] == "BiasVoltage":
            return [self._one("BiasVoltage", self.voltage, bare=True)]
        assert request == {"request": "labelProps", "value": "None"}
        text = b"".join(self._one(k, v) for k, v in self.labels.items())
        return [text[:30], text[30:]]

    def _one(self, label: str, value: Any, bare: bool = False) -> bytes:
        content = value if bare else {"value": value, "unit": ""}
        item = {label: content} if self.flat else {"label": label, "value": content}
        return json.dumps(item).encode() + (b"" if label == "NumberOfDetectors" else b"\x17")


class Counts(Socket):
    """A line every period by the test's clock, after a backlog of three; the first new one is of a period that had
    begun before the connection."""

    def __init__(self, clock: Clock, period_s: float) -> None:
        super().__init__()
        self.clock = clock
        self.period = period_s
        self.next = clock.t + 0.4 * period_s
        self.n = 0
        self.backlog = [b"1,9,9,9,9\n2,9,9,", b"9,9\n3,9,9,9,9\n"]
        self.line = "{t},{n}00,{n}10,{n}20,5\n"

    def recv(self, bufsize: int, /) -> bytes:
        if self.backlog:
            return self.backlog.pop(0)
        if self.clock.t < self.next:
            raise TimeoutError
        self.next += self.period
        self.n += 1
        return self.line.format(t=self.clock.t, n=self.n).encode()


def bank(clock: Clock, controller: Controller, **options: object) -> tuple[Snspd, list[Socket]]:
    opened: list[Socket] = []

    def connect(host: str, port: int) -> Socket:
        period = controller.labels["InptMeasurementPeriod"] * 1e-3
        opened.append(Socket(controller) if port == 12000 else Counts(clock, period))
        return opened[-1]

    options = {"counts_address": "tcp:h:12345"} | options
    made = registry.create("snspd", "detectors", "tcp:h:12000", make_pool(clock, tcp=connect), options)
    assert isinstance(made, Snspd)
    return made, opened


@pytest.mark.parametrize("flat", [True, False])
async def test_open_takes_all_bias_away(clock: Clock, flat: bool) -> None:
    controller = Controller(flat)
    made, _ = bank(clock, controller, trigger_v=0.15)
    identity = await made.open()
    assert identity.model == "SNSPD controller, 4 detectors"
    assert controller.labels["BiasCurrent"] == [0.0] * 3
    assert controller.labels["TriggerLevel"] == [150.0] * 4
    assert controller.labels["DetectorEnable"] is True
    await made.set_bias([18e-6, 19e-6, 20e-6])
    assert controller.labels["BiasCurrent"] == pytest.approx([18.0, 19.0, 20.0])
    assert made.bias() == (18e-6, 19e-6, 20e-6)
    assert await made.read_bias_voltage() == (0.001, 0.002, 0.003)
    await made.make_safe()
    assert controller.labels["BiasCurrent"] == [0.0] * 3
    await made.close()


async def test_a_refused_bias_writes_nothing(clock: Clock) -> None:
    controller = Controller()
    made, _ = bank(clock, controller)
    with pytest.raises(OutOfRange, match=r"detectors\.DX0: 4e-05 A is above the upper limit 3e-05 A"):
        await made.set_bias([1e-6, 40e-6, 1e-6])
    assert controller.log == []
    with pytest.raises(ValueError, match="3 channels"):
        await made.set_bias([1e-6])
    controller.error = "bias overload"
    with pytest.raises(Refused, match='detectors at tcp:h:12000: ErrorMessage: "bias overload"'):
        await made.set_bias([1e-6] * 3)
    controller.error = None
    controller.take_sets = False
    with pytest.raises(Refused, match=r"BiasCurrent is \[9\.0.* after \[1\.0.* was set"):
        await made.set_bias([1e-6] * 3)


async def test_a_broadcast_is_not_taken_for_what_is_held(clock: Clock) -> None:
    controller = Controller()
    controller.broadcast = b'{"label": "BiasCurrent", "value": [5.0, 5.0, 5.0]}{"other": 1}garbage\x17'
    made, _ = bank(clock, controller)
    await made.set_bias([1e-6] * 3)
    assert made.bias() == (1e-6,) * 3


async def test_rates_are_of_one_fresh_period(clock: Clock) -> None:
    controller = Controller()
    made, opened = bank(clock, controller)
    rates = await made.read_rates(0.2)
    assert controller.labels["InptMeasurementPeriod"] == 200
    assert rates.tolist() == [1000.0, 1050.0, 1100.0]  # the second new line: 200, 210, 220 in 0.2 s
    assert opened[-1].closed
    await made.read_rates(0.2)
    assert sum(r.get("command") == "SetMeasurementPeriod" for r in controller.log) == 1
    await made.read_rates(0.001)
    assert controller.labels["InptMeasurementPeriod"] == 10


async def test_a_counts_stream_that_is_none(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = Controller()
    made, _ = bank(clock, controller)
    plain = Counts.__init__

    def broken(self: Counts, clock: Clock, period_s: float) -> None:
        plain(self, clock, period_s)
        self.line = "{t},1,x,{n}\n"

    monkeypatch.setattr(Counts, "__init__", broken)
    with pytest.raises(BusFault, match="not a line of counts"):
        await made.read_rates(0.1)

    def silent(self: Counts, clock: Clock, period_s: float) -> None:
        plain(self, clock, period_s)
        self.next = 1e9

    monkeypatch.setattr(Counts, "__init__", silent)
    with pytest.raises(Timeout, match=r"detectors at tcp:h:12345: 0 lines in 0\.4 s"):
        await made.read_rates(0.1)


async def test_wrong_controllers(clock: Clock) -> None:
    controller = Controller()
    controller.labels["NumberOfDetectors"] = 2
    made, _ = bank(clock, controller)
    with pytest.raises(WrongDevice, match=r"expected SNSPD controller with at least 3 detectors, found 2 detectors"):
        await made.open()
    del controller.labels["NumberOfDetectors"]
    with pytest.raises(WrongDevice, match="no reply in time"):
        await made.open()
    controller.voltage = [0.1, "x", 0.2]
    with pytest.raises(BusFault, match="BiasVoltage is"):
        await made.read_bias_voltage()
