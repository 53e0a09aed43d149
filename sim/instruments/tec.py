"""A Meerstetter TEC controller over MeCom (protocol documents 5117 and 5136): parameters, ramp, stability, watchdog.

The controller's inner loop runs in the plant (`sim.ports.TecPort`); this is its front end. Not emulated: autotuning
(parameters 510xx are answered as not available).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from sim.clock import SimClock
from sim.instruments.mecom import (
    MAX_FRAME,
    MecomError,
    MecomRefusal,
    Request,
    acknowledgement,
    data_reply,
    decode,
    encode,
    parse_request,
)
from sim.instruments.stream import Replies
from sim.ports import TecPort
from sim.trouble import Trouble

BROADCAST = 255
STATUS_READY, STATUS_RUN, STATUS_ERROR, STATUS_RESETTING = 1, 2, 3, 5
RESET_S = 0.2
WATCHDOG_RAMP_S = 5.0
IDENTIFICATION = b"TEC-1091 qmodd twin "
OUTPUT_ENABLE, TARGET, RAMP_RATE, COMMUNICATION_WATCHDOG, STABILITY_WINDOW, STABILITY_TIME = (
    2010,
    3000,
    3003,
    2060,
    4040,
    4041,
)
STAGE_INPUT, STATIC_CURRENT, CURRENT_LIMIT, POLARITY = 2000, 2020, 2030, 3034
REGULATOR = (3010, 3011, 3012, 3013)
FROM_STATIC, FROM_REGULATOR = 0, 2
"""What the output stage follows (parameter 2000); live values (1) are not emulated."""


@dataclass(frozen=True)
class Parameter:
    """One line of the parameter table. `read` None: the stored value; `low`..`high`: what a set accepts."""

    is_float: bool
    default: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    writable: bool = True
    read: Callable[[], float] | None = None


@dataclass
class _Trip:
    """The communication watchdog is taking the output down."""

    since: float
    current_a: float = field(default=0.0)


class TecController:
    """Feed it the host's bytes, take its replies. `serial` is a number of up to nine digits."""

    def __init__(self, clock: SimClock, port: TecPort, *, address: int = 2, serial: int = 1) -> None:
        self._clock = clock
        self._port = port
        self._address = address
        self._replies = Replies(clock)
        self._buffer = bytearray()
        self.trouble = Trouble(self._troubled)
        self._table = self._parameters(serial)
        self._flash = {number: p.default for number, p in self._table.items()}
        self._reset_until = -math.inf
        self._on = False
        self._shown: dict[int, float] = {}
        self.stale = False
        self._ramp_c = self._ramped_at = self._outside_at = 0.0
        self.power_on_reset()

    def _parameters(self, serial: int) -> dict[int, Parameter]:
        port = self._port

        def shown(read: Callable[[], float], *, is_float: bool = True) -> Parameter:
            return Parameter(is_float, writable=False, read=read)

        def constant(value: int) -> Parameter:
            return Parameter(False, value, writable=False)

        return {
            100: constant(1091),
            101: constant(123),
            102: constant(serial),
            103: constant(600),
            104: shown(self._status, is_float=False),
            105: shown(lambda: self._error, is_float=False),
            106: constant(1),
            107: constant(0),
            108: Parameter(False, 0, 0, 1),
            109: constant(0),
            1000: shown(self._object_c),
            1001: shown(lambda: port.sink_c),
            1010: shown(lambda: self._values[TARGET]),
            1011: shown(lambda: self._ramp_c),
            1020: shown(lambda: port.current_a),
            1021: shown(lambda: port.voltage_v),
            1200: shown(self._stability, is_float=False),
            STAGE_INPUT: Parameter(False, FROM_REGULATOR, 0, 2),
            OUTPUT_ENABLE: Parameter(False, 0, 0, 1),
            STATIC_CURRENT: Parameter(True, 0.0, -4.0, 4.0),
            2021: Parameter(True, 0.0, -12.0, 12.0),
            CURRENT_LIMIT: Parameter(True, 2.0, 0.0, 4.0),
            2031: Parameter(True, 6.0, 0.0, 12.0),
            2032: Parameter(True, 4.5, 0.0, 5.0),
            2033: Parameter(True, 13.0, 0.0, 15.0),
            2051: Parameter(False, self._address, 0, 254),
            COMMUNICATION_WATCHDOG: Parameter(True, 0.0, 0.0, 3600.0),
            TARGET: Parameter(True, 25.0, -20.0, 85.0),
            3002: Parameter(True, 5.0, 0.0, 50.0),
            RAMP_RATE: Parameter(True, 1.0, 1e-4, 10.0),
            3010: Parameter(True, 0.95, 0.0, 1000.0),
            3011: Parameter(True, 8.8, 0.0, 1e5),
            3012: Parameter(True, 0.0, 0.0, 1e5),
            3013: Parameter(True, 0.0, 0.0, 1.0),
            3020: Parameter(False, 0, 0, 2),
            POLARITY: Parameter(False, 0, 0, 1),
            STABILITY_WINDOW: Parameter(True, 0.01, 0.0, 10.0),
            STABILITY_TIME: Parameter(True, 2.0, 0.0, 3600.0),
            4042: Parameter(True, 300.0, 0.0, 1e5),
        }

    def power_on_reset(self) -> None:
        """Registers from flash; output off."""
        self._buffer.clear()
        self._replies.clear()
        self._values = dict(self._flash)
        self._error = int(self.trouble.value("error", default=30.0))
        self._trip: _Trip | None = None
        self._last_frame = self._clock.now()
        self._output(on=False)
        self._apply_settings()

    # --- time ----------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Ramp, stability window and watchdog up to now."""
        now = self._clock.now()
        limit = self._values[COMMUNICATION_WATCHDOG]
        if self._trip is None and self._on and limit > 0 and now - self._last_frame > limit:
            self._trip = _Trip(self._last_frame + limit, self._values[CURRENT_LIMIT])
        if self._trip is not None:
            left = 1.0 - (now - self._trip.since) / WATCHDOG_RAMP_S
            if left <= 0.0:
                self._trip = None
                self._output(on=False)
                self._port.current_limit_a = self._values[CURRENT_LIMIT]
            else:
                self._port.current_limit_a = self._trip.current_a * left
        self._advance_ramp(now)
        window = self._values[STABILITY_WINDOW]
        if not self._on or abs(self._object_c() - self._values[TARGET]) > window:
            self._outside_at = now

    def _object_c(self) -> float:
        """What the thermistor says, C."""
        return self._port.object_c + self.trouble.value("offset", default=3.0)

    def _troubled(self) -> None:
        if self.trouble.has("error"):
            self.inject_error(int(self.trouble.value("error", default=30.0)))
        self._apply_settings()

    def _advance_ramp(self, now: float) -> None:
        if self._on:
            step = self._values[RAMP_RATE] * (now - self._ramped_at)
            self._ramp_c += min(max(self._values[TARGET] - self._ramp_c, -step), step)
            self._port.target_c = self._ramp_c - self.trouble.value("offset", default=3.0)
        self._ramped_at = now

    def _output(self, *, on: bool) -> None:
        now = self._clock.now()
        self._on = on
        self._values[OUTPUT_ENABLE] = float(on)
        self._outside_at = self._ramped_at = now
        self._ramp_c = self._object_c() if on else self._values[TARGET]  # a ramp begins where the object is
        self._port.target_c = self._ramp_c - self.trouble.value("offset", default=3.0)
        self._port.enabled = on

    def inject_error(self, number: int) -> None:
        """The controller's own protection has struck: output off, parameters 104 and 105 say so; a reset clears it."""
        self._error = number
        self._output(on=False)

    def _status(self) -> int:
        if self._error:
            return STATUS_ERROR
        return STATUS_RUN if self._on else STATUS_READY

    def _stability(self) -> int:
        if not self._on:
            return 0
        return 2 if self._clock.now() - self._outside_at >= self._values[STABILITY_TIME] else 1

    # --- frames --------------------------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        return self._replies.due

    def take(self, until: float | None = None) -> bytes:
        return self._replies.take(until)

    def feed(self, data: bytes) -> None:
        """Bytes from the host; whole frames are executed, broken ones passed over in silence."""
        for byte in data:
            if byte == 0x23:  # '#' begins a frame wherever it comes
                self._buffer = bytearray(b"#")
            elif byte == 0x0D:
                self._line(bytes(self._buffer))
                self._buffer.clear()
            elif len(self._buffer) < MAX_FRAME:
                self._buffer.append(byte)

    def _line(self, line: bytes) -> None:
        request = parse_request(line)
        if request is None or request.address not in (0, self._address, BROADCAST):
            return
        if self._clock.now() < self._reset_until:
            return
        self.poll()
        self._last_frame = self._clock.now()
        try:
            answer = self._execute(request)
        except MecomRefusal as refusal:
            answer = data_reply(request, self._address, b"+%02X" % refusal.code)
        if request.address != BROADCAST:
            self._replies.put(answer)

    def _execute(self, request: Request) -> bytes:
        payload = request.payload
        if payload.startswith(b"?VR"):
            return data_reply(request, self._address, self._get(payload[3:]))
        if payload.startswith(b"VS"):
            self._set(payload[2:])
        elif payload == b"?IF":
            return data_reply(request, self._address, IDENTIFICATION)
        elif payload == b"RS":
            self.power_on_reset()
            self._reset_until = self._clock.now() + RESET_S
        elif payload == b"SP":
            self._flash.update(self._values)
            self._flash[OUTPUT_ENABLE] = 0.0
        elif payload == b"ES":
            self._output(on=False)
        else:
            raise MecomRefusal(MecomError.COMMAND)
        return acknowledgement(request, self._address)

    def _lookup(self, digits: bytes) -> tuple[int, Parameter]:
        try:
            number, instance = int(digits[:4], 16), int(digits[4:6], 16)
        except ValueError:
            raise MecomRefusal(MecomError.FORMAT) from None
        if number not in self._table:
            raise MecomRefusal(MecomError.PARAMETER)
        if instance != 1:
            raise MecomRefusal(MecomError.INSTANCE)
        return number, self._table[number]

    def _get(self, digits: bytes) -> bytes:
        if len(digits) != 6:
            raise MecomRefusal(MecomError.FORMAT)
        number, parameter = self._lookup(digits)
        value = self._values[number] if parameter.read is None else self._reading(number, parameter.read)
        return encode(value, is_float=parameter.is_float)

    def _reading(self, number: int, read: Callable[[], float]) -> float:
        """While `stale`, what was read last."""
        if not self.stale or number not in self._shown:
            self._shown[number] = read()
        return self._shown[number]

    def _set(self, digits: bytes) -> None:
        if len(digits) != 14:
            raise MecomRefusal(MecomError.FORMAT)
        number, parameter = self._lookup(digits)
        if not parameter.writable:
            raise MecomRefusal(MecomError.READ_ONLY)
        value = decode(digits[6:], is_float=parameter.is_float)
        if not parameter.low <= value <= parameter.high:  # false for NaN, too
            raise MecomRefusal(MecomError.RANGE)
        if number in REGULATOR and self.trouble.has("forgetful"):
            return
        self._values[number] = value
        if number == OUTPUT_ENABLE:
            self._trip = None
            self._error = self._error if value or self.trouble.has("error") else 0
            self._output(on=bool(value) and not self._error)
        self._apply_settings()

    def _apply_settings(self) -> None:
        """What the inner loop takes over from the parameters."""
        port, v = self._port, self._values
        port.kp_a_per_k = v[3010]
        port.ti_s = v[3011]
        if self._trip is None:
            port.current_limit_a = min(v[CURRENT_LIMIT], self.trouble.value("weak", default=0.05, sound=math.inf))
        port.polarity = 1 if v[POLARITY] == 0 else -1
        port.static_a = v[STATIC_CURRENT] if v[STAGE_INPUT] == FROM_STATIC else None
