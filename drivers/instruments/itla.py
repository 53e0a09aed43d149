"""OIF ITLA tunable laser on a serial line (OIF-ITLA-MSA-01.3; reference hardware A4, B)."""

from __future__ import annotations

import asyncio
import contextlib

from pydantic import Field, model_validator

from drivers.bus.pool import BusPool
from drivers.bus.serial import SerialIo
from drivers.errors import BusFault, OutOfRange, Refused, Timeout
from drivers.instruments.itla_frame import ERRORS, NOP, Dialogue, Reply, Status
from drivers.options import DriverOptions, identify, wrong_device
from drivers.quantity import Limits, Quantity
from drivers.roles import Identity, LaserReading

DEVICE_TYPE, MODEL, SERIAL, RELEASE, AEA_EAR = 0x01, 0x03, 0x04, 0x06, 0x0B
STATUS_F, STATUS_W, CHANNEL, POWER, RES_ENA = 0x20, 0x21, 0x30, 0x31, 0x32
FCF_THZ, FCF_GHZ10, FCF_MHZ = 0x35, 0x36, 0x67
LF_THZ, LF_GHZ10, LF_MHZ, OUT_POWER = 0x40, 0x41, 0x68, 0x42
POWER_LOW, POWER_HIGH = 0x50, 0x51
LOW_THZ, LOW_GHZ10, HIGH_THZ, HIGH_GHZ10 = 0x52, 0x53, 0x54, 0x55
FINE_RANGE, FINE = 0x4F, 0x62
SENA = 0x0008
DISABLED = 1 << 12
CLEAR_LATCHED = 0x00FF
ALARMS = {13: "FATAL", 12: "DIS", 11: "VSF", 10: "FREQ", 9: "THERM", 8: "PWR"}
"""Live bits of the two status registers; 7 to 0 are latched copies or flags of the serial line."""
FATAL = 1 << 13


class ItlaOptions(DriverOptions):
    baudrate: int = Field(default=9600, gt=0)
    deadline_s: float = Field(default=0.25, gt=0, description="the MSA's reply time-out")
    settle_s: float = Field(default=60.0, gt=0, description="how long tuning may take")
    poll_s: float = Field(default=0.1, gt=0)
    low_hz: float = Field(default=191.5e12, gt=0)
    high_hz: float = Field(default=196.25e12, gt=0)
    low_dbm: float = 6.0
    high_dbm: float = 13.5
    fine_hz: float = Field(default=5e9, gt=0, le=32e9, description="fine tuning to both sides of the channel at most")

    @model_validator(mode="after")
    def _ordered(self) -> ItlaOptions:
        if self.low_hz >= self.high_hz or self.low_dbm > self.high_dbm:
            raise ValueError("low_hz, low_dbm must lie below high_hz, high_dbm")
        return self


class Itla:
    """One laser (role Laser). Dark is safe."""

    Options = ItlaOptions

    def __init__(self, name: str, address: str, buses: BusPool, options: ItlaOptions) -> None:
        self.name = name
        self.address = address
        self._options = options
        self._clock = buses.clock
        self._line = buses.serial(address, name, baudrate=options.baudrate)
        self._dialogue = Dialogue()
        self._lock = asyncio.Lock()
        self._frequency = Quantity(f"{name}.frequency", Limits("Hz", options.low_hz, options.high_hz, options.low_hz))
        self._power = Quantity(f"{name}.power", Limits("dBm", options.low_dbm, options.high_dbm, options.low_dbm))
        self._fine_hz = Quantity(f"{name}.fine", Limits("Hz", -options.fine_hz, options.fine_hz, 0.0))

    async def open(self) -> Identity:
        """Identify, switch off, read what the laser itself can do.

        Raises WrongDevice, Refused, BusFault, Timeout.
        """
        expected = "OIF ITLA (device type contains ITLA)"
        kind = await identify(self.name, self.address, expected, self._text(DEVICE_TYPE))
        if "ITLA" not in kind.upper():
            raise wrong_device(self.name, self.address, expected, repr(kind))
        await self.make_safe()
        model, serial, release = [await self._text(r) for r in (MODEL, SERIAL, RELEASE)]
        await self._narrow_limits()
        for register in (STATUS_F, STATUS_W):
            await self._write(register, CLEAR_LATCHED)
        return Identity("itla", self.address, model, serial, release)

    async def make_safe(self) -> None:
        """Output off."""
        await self.enable(False)

    async def close(self) -> None:
        await self._line.close()

    async def known_answer(self) -> bool:
        """See the role Probed. The channel is 1 after power-on and whenever a frequency is set."""
        return await self._read(CHANNEL) == 1

    async def read(self) -> LaserReading:
        """`status` is StatusF. `emitting` is what the laser says: enabled, and not held dark by its disable pin.

        Raises BusFault, Timeout, Refused.
        """
        fatal, warning = await self._read(STATUS_F), await self._read(STATUS_W)
        enabled = await self._read(RES_ENA) & SENA
        alarms = [f"fatal:{text}" for bit, text in ALARMS.items() if fatal >> bit & 1]
        alarms += [f"warning:{text}" for bit, text in ALARMS.items() if warning >> bit & 1 and bit not in (12, 13)]
        return LaserReading(
            emitting=bool(enabled) and not fatal & DISABLED,
            frequency_hz=await self._hertz(LF_THZ, LF_GHZ10, LF_MHZ),
            power_dbm=_signed(await self._read(OUT_POWER)) / 100,
            status=fatal,
            alarms=tuple(alarms),
        )

    def output(self, name: str) -> Quantity:
        """Limits and last value of `power` and `fine`, as far as the laser has told them. Raises KeyError otherwise."""
        return {"power": self._power, "fine": self._fine_hz}[name]

    async def set_frequency(self, hz: float) -> None:
        """Channel 1's frequency, to 1 MHz. The laser takes it only while dark.

        Raises OutOfRange (nothing written), Refused while emitting, BusFault, Timeout.
        """
        self._frequency.check(hz)
        if await self._read(RES_ENA) & SENA:
            raise Refused(f"{self.name} at {self.address}: the frequency is set while the output is off; it is on")
        mhz = round(hz / 1e6)
        await self._write(CHANNEL, 1)
        await self._write(FCF_THZ, mhz // 1_000_000)
        await self._write(FCF_GHZ10, mhz % 1_000_000 // 100)
        try:
            await self._write(FCF_MHZ, mhz % 100)
        except Refused:
            # The first edition of the agreement has no such register; then 100 MHz is the step.
            if mhz % 100:
                raise
        self._frequency.wrote(hz, self._clock())

    async def set_power(self, dbm: float) -> None:
        """Optical power, to 0.01 dB. Raises OutOfRange (nothing written), Refused, BusFault, Timeout."""
        self._power.check(dbm)
        await self._write(POWER, round(dbm * 100))
        await self._settle(self._options.settle_s)
        self._power.wrote(dbm, self._clock())

    async def set_fine_hz(self, hz: float) -> None:
        """Fine tuning about the channel, to 1 MHz, emitting or not; returns when it has settled.

        Raises OutOfRange (nothing written), Refused where the laser has no such register, BusFault, Timeout.
        """
        self._fine_hz.check(hz)
        mhz = round(hz / 1e6)
        await self._write(FINE, mhz & 0xFFFF)
        await self._settle(self._options.settle_s)
        self._fine_hz.wrote(mhz * 1e6, self._clock())

    async def enable(self, on: bool) -> None:
        """Returns when the laser has settled (its pending bits are clear) or raises.

        Raises Refused (with the laser's reason, or a fatal alarm), Timeout, BusFault.
        """
        await self._write(RES_ENA, SENA if on else 0)
        await self._settle(self._options.settle_s)
        if on and (status := await self._read(STATUS_F)) & FATAL:
            alarms = [text for bit, text in ALARMS.items() if status >> bit & 1]
            raise Refused(f"{self.name} at {self.address}: fatal alarm after enabling: {', '.join(alarms)}")

    async def _settle(self, limit_s: float) -> None:
        ends = self._clock() + limit_s
        while (nop := await self._read(NOP)) >> 8:
            if self._clock() >= ends:
                raise Timeout(f"{self.name} at {self.address}: still pending (0x{nop:04x}) after {limit_s:g} s")
            await asyncio.sleep(self._options.poll_s)

    async def _narrow_limits(self) -> None:
        """The laser's own range, where it tells it, within the configured one."""
        with contextlib.suppress(Refused):  # registers that a laser may lack
            low_dbm, high_dbm = [_signed(await self._read(r)) / 100 for r in (POWER_LOW, POWER_HIGH)]
            self._power = self._within(self._power, low_dbm, high_dbm)
        with contextlib.suppress(Refused):
            low, high = await self._hertz(LOW_THZ, LOW_GHZ10), await self._hertz(HIGH_THZ, HIGH_GHZ10)
            self._frequency = self._within(self._frequency, low, high)
        with contextlib.suppress(Refused):
            reach = await self._read(FINE_RANGE) * 1e6
            self._fine_hz = self._within(self._fine_hz, -reach, reach, 0.0)
            await self._write(FINE, 0)  # what an earlier run left would shift the channel

    def _within(self, configured: Quantity, low: float, high: float, safe: float | None = None) -> Quantity:
        mine = configured.limits
        low, high = max(low, mine.low), min(high, mine.high)
        if low > high:
            raise OutOfRange(f"{configured.output}: the configured range lies outside the laser's own, {mine.unit}")
        return Quantity(configured.output, Limits(mine.unit, low, high, low if safe is None else safe))

    async def _hertz(self, thz: int, ghz10: int, mhz: int | None = None) -> float:
        fine = 0 if mhz is None else await self._fine(mhz)
        return await self._read(thz) * 1e12 + await self._read(ghz10) * 1e8 + fine * 1e6

    async def _fine(self, register: int) -> int:
        """A fine-tuning register in MHz, 0 where the laser has none."""
        try:
            return _signed(await self._read(register))
        except Refused:
            return 0

    async def _read(self, register: int) -> int:
        return (await self._ask(register, harmless=True)).value

    async def _write(self, register: int, value: int) -> None:
        # The same value again does no harm.
        await self._ask(register, value, write=True, harmless=True)

    async def _ask(self, register: int, value: int = 0, *, write: bool = False, harmless: bool) -> Reply:
        async with self._lock:
            return await self._line.exchange(
                lambda io: self._dialogue_step(io, register, value, write),
                deadline_s=self._options.deadline_s,
                harmless=harmless,
                steps=4,
            )

    def _dialogue_step(self, io: SerialIo, register: int, value: int = 0, write: bool = False) -> Reply:
        reply = self._dialogue.ask(io, register, value, write=write)
        if reply.status is Status.EXECUTION_ERROR:
            io.restart()
            code = self._dialogue.ask(io, NOP).value & 0x0F
            what = f"{'write' if write else 'read'} of register 0x{register:02x}"
            raise Refused(f"{self.name} at {self.address}: {what}: {ERRORS.get(code, f'error 0x{code:x}')}")
        return reply

    async def _text(self, register: int) -> str:
        """A string register: its length comes first, then the characters from register 0x0B, two a read."""

        def work(io: SerialIo) -> str:
            head = self._dialogue_step(io, register)
            if head.status is not Status.AEA:
                raise BusFault(f"{self.name} at {self.address}: register 0x{register:02x} holds no text")
            text = b""
            while len(text) < head.value:
                io.restart()
                text += self._dialogue_step(io, AEA_EAR).value.to_bytes(2, "big")
            return text[: head.value].rstrip(b"\0 ").decode("ascii", "replace")

        async with self._lock:
            return await self._line.exchange(work, deadline_s=self._options.deadline_s, harmless=True, steps=80)


def _signed(value: int) -> int:
    return value - 0x10000 if value & 0x8000 else value
