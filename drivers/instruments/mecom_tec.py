"""Meerstetter TEC controller over MeCom on a serial line (reference hardware A3, B)."""

from __future__ import annotations

import struct
from typing import Literal

from pydantic import Field, model_validator

from drivers.bus.pool import BusPool
from drivers.bus.serial import SerialIo
from drivers.errors import BusFault, Refused
from drivers.instruments import mecom_frame
from drivers.options import DriverOptions, identify, wrong_device
from drivers.quantity import Limits, Quantity
from drivers.roles import Identity, TecReading, TecState

DEVICE_TYPE, SERIAL, FIRMWARE, STATUS, ERROR = 100, 102, 103, 104, 105
OBJECT_C, SINK_C, TARGET_NOW_C, RAMP_TARGET_C, CURRENT_A, VOLTAGE_V, STABLE = 1000, 1001, 1010, 1011, 1020, 1021, 1200
STAGE_INPUT, OUTPUT_ON, STATIC_A, CURRENT_LIMIT, WATCHDOG, TARGET_C, RAMP = 2000, 2010, 2020, 2030, 2060, 3000, 3003
FROM_STATIC, FROM_REGULATOR = 0, 2
KP, TI, TD = 3010, 3011, 3012
STATUS_ERROR, STATUS_RUN = 3, 2


class MecomTecOptions(DriverOptions):
    device_address: int = Field(default=0, ge=0, le=254, description="0 is answered by whichever device is there")
    baudrate: int = Field(default=57600, gt=0)
    deadline_s: float = Field(default=0.3, gt=0)
    low_c: float = 10.0
    high_c: float = 60.0
    safe_c: float = Field(default=25.0, description="target while the output is off; see `safe`")
    safe: Literal["hold", "off"] = Field(
        default="hold",
        description="hold: stay at the present target (no thermal shock); off: output off, target safe_c",
    )
    current_limit_a: float = Field(default=2.0, gt=0)
    ramp_c_per_s: float | None = Field(default=None, gt=0, description="the controller's own ramp; default: as it is")
    watchdog_s: float = Field(
        default=0.0, ge=0, description="the controller restarts without traffic for so long; 0: never"
    )

    @model_validator(mode="after")
    def _ordered(self) -> MecomTecOptions:
        Limits("C", self.low_c, self.high_c, self.safe_c)
        return self


class MecomTec:
    """One TEC channel (role TemperatureController)."""

    Options = MecomTecOptions

    def __init__(self, name: str, address: str, buses: BusPool, options: MecomTecOptions) -> None:
        self.name = name
        self.address = address
        self._options = options
        self._clock = buses.clock
        self._line = buses.serial(address, name, baudrate=options.baudrate)
        self._sequence = 0
        self._target = Quantity(f"{name}.target", Limits("C", options.low_c, options.high_c, options.safe_c))
        limit = options.current_limit_a
        self._limit = Quantity(f"{name}.current_limit", Limits("A", 0.0, limit, limit))
        self._driving = False
        self._gains: tuple[float, float, float] | None = None

    async def open(self) -> Identity:
        """Identify, set current limit, ramp and communication watchdog, then the safe state.

        Raises WrongDevice, Refused, BusFault, Timeout.
        """
        expected = "MeCom TEC controller (device type 1000 to 1999 in parameter 100)"
        kind = await identify(self.name, self.address, expected, self.get_int(DEVICE_TYPE))
        if not 1000 <= kind < 2000:
            raise wrong_device(self.name, self.address, expected, f"type {kind}")
        serial, firmware = await self.get_int(SERIAL), await self.get_int(FIRMWARE)
        await self.set_current_limit(self._options.current_limit_a)
        if self._options.ramp_c_per_s is not None:
            await self.set_float(RAMP, self._options.ramp_c_per_s)
        await self.set_float(WATCHDOG, self._options.watchdog_s)
        await self.set_int(STAGE_INPUT, FROM_REGULATOR)  # an interrupted identification may have left it static
        await self.make_safe()
        return Identity("mecom_tec", self.address, f"TEC-{kind}", str(serial), f"{firmware / 100:.2f}")

    async def make_safe(self) -> None:
        """As option `safe` says: hold the present target, or output off and target at its safe value. A fixed current
        ends in either case."""
        if self._driving:
            await self.drive_current(None)
        if self._options.safe == "off":
            await self.enable(False)
            await self.set_target(self._options.safe_c)

    async def close(self) -> None:
        await self._line.close()

    async def read(self) -> TecReading:
        """Raises BusFault, Timeout, Refused."""
        status = await self.get_int(STATUS)
        error = await self.get_int(ERROR) if status == STATUS_ERROR else 0
        return TecReading(
            object_c=await self.get_float(OBJECT_C),
            sink_c=await self.get_float(SINK_C),
            target_c=await self.get_float(TARGET_NOW_C),
            ramp_target_c=await self.get_float(RAMP_TARGET_C),
            current_a=await self.get_float(CURRENT_A),
            voltage_v=await self.get_float(VOLTAGE_V),
            state=_condense(status, await self.get_int(STABLE)),
            error=error,
        )

    def output(self, name: str) -> Quantity:
        """Limits and last value of `target`. Raises KeyError for another name."""
        return {"target": self._target}[name]

    async def set_target(self, celsius: float) -> None:
        """Raises OutOfRange (nothing written), Refused, BusFault, Timeout."""
        await self._set_output(TARGET_C, self._target, celsius)

    async def set_current_limit(self, amperes: float) -> None:
        """At most option `current_limit_a`. Raises OutOfRange (nothing written), Refused, BusFault, Timeout."""
        await self._set_output(CURRENT_LIMIT, self._limit, amperes)

    async def set_gains(self, kp_a_per_k: float, ti_s: float, td_s: float = 0.0) -> None:
        """The controller's own PID. Raises OutOfRange for negative or non-finite numbers."""
        for label, unit, value in (("kp", "A/K", kp_a_per_k), ("ti", "s", ti_s), ("td", "s", td_s)):
            Quantity(f"{self.name}.{label}", Limits(unit, 0.0, 1e4, 0.0)).check(value)
        for parameter, value in ((KP, kp_a_per_k), (TI, ti_s), (TD, td_s)):
            await self.set_float(parameter, value)
        self._gains = kp_a_per_k, ti_s, td_s

    async def known_answer(self) -> bool:
        """See the role Probed. Every reply has a CRC, so a wrong one is an error and no answer."""
        return 1000 <= await self.get_int(DEVICE_TYPE) < 2000

    async def check_registers(self) -> list[str]:
        """See the role Checked: the parameters that the driver has set."""
        wanted = {CURRENT_LIMIT: self._limit.value, WATCHDOG: self._options.watchdog_s}
        if self._gains is not None:
            wanted |= dict(zip((KP, TI, TD), self._gains, strict=True))
        wrong = []
        for parameter, value in wanted.items():
            if abs((found := await self.get_float(parameter)) - value) > 1e-5 * max(1.0, abs(value)):
                wrong.append(f"parameter {parameter} reads {found:g}, not {value:g}")
        return wrong

    async def enable(self, on: bool) -> None:
        """Output stage on (regulating) or off."""
        await self.set_int(OUTPUT_ON, int(on))

    async def drive_current(self, amperes: float | None) -> None:
        """A fixed output current instead of regulation, positive cools; None regulates again (parameters 2000, 2020).

        The regulator starts with an empty integral, so it finds the current of before only after some Ti. At most the
        current limit in force. Raises OutOfRange (nothing written), Refused, BusFault, Timeout.
        """
        if amperes is None:
            await self.set_int(STAGE_INPUT, FROM_REGULATOR)
            self._driving = False
            return
        most = self._limit.value
        number = Quantity(f"{self.name}.current", Limits("A", -most, most, 0.0)).check(amperes)
        await self.set_float(STATIC_A, number)
        self._driving = True
        await self.set_int(STAGE_INPUT, FROM_STATIC)

    async def get_int(self, parameter: int, instance: int = 1) -> int:
        """Read an INT32 parameter."""
        return int.from_bytes(await self._get(parameter, instance), "big", signed=True)

    async def get_float(self, parameter: int, instance: int = 1) -> float:
        """Read a FLOAT32 parameter."""
        value: float = struct.unpack(">f", await self._get(parameter, instance))[0]
        return value

    async def set_int(self, parameter: int, value: int, instance: int = 1) -> None:
        await self._set(parameter, instance, value.to_bytes(4, "big", signed=True))

    async def set_float(self, parameter: int, value: float, instance: int = 1) -> None:
        await self._set(parameter, instance, struct.pack(">f", value))

    async def _set_output(self, parameter: int, output: Quantity, value: float) -> None:
        now = self._clock()
        number = output.admit(value, now)
        await self.set_float(parameter, number)
        output.wrote(number, now)

    async def _get(self, parameter: int, instance: int) -> bytes:
        payload = await self._ask(f"?VR{parameter:04X}{instance:02X}")
        try:
            data = bytes.fromhex(payload)
        except ValueError:
            data = b""
        if len(data) != 4:
            raise BusFault(f"{self.name} at {self.address}: parameter {parameter} answered with {payload!r}")
        return data

    async def _set(self, parameter: int, instance: int, value: bytes) -> None:
        # Writing the same value twice does no harm, so a lost acknowledge is asked for again.
        payload = await self._ask(f"VS{parameter:04X}{instance:02X}{value.hex().upper()}")
        if payload:
            raise BusFault(f"{self.name} at {self.address}: set of {parameter} answered with {payload!r}")

    async def _ask(self, payload: str) -> str:
        def work(io: SerialIo) -> str:
            # A sequence number of its own for every attempt: a late reply to an earlier one can never be taken for it.
            self._sequence = (self._sequence + 1) & 0xFFFF
            sent = mecom_frame.request(self._options.device_address, self._sequence, payload)
            io.write(sent)
            while (answer := mecom_frame.match(io.until(mecom_frame.END), sent)) is None:
                self._line.lane.counters.resyncs += 1
            return answer

        try:
            return await self._line.exchange(work, deadline_s=self._options.deadline_s, harmless=True)
        except Refused as error:
            raise Refused(f"{self.name} at {self.address}: {payload}: {error}") from error


def _condense(status: int, stable: int) -> TecState:
    if status == STATUS_ERROR:
        return TecState.ERROR
    if status != STATUS_RUN or stable == 0:
        return TecState.OFF
    return TecState.STABLE if stable == 2 else TecState.NOT_STABLE
