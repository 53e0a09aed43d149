"""TMP117: temperature sensor over I2C (Texas Instruments SNOSD82; reference hardware A3, B)."""

from __future__ import annotations

import asyncio

from pydantic import Field

from drivers.bus.pool import BusPool
from drivers.errors import Stale
from drivers.options import DriverOptions, identify, wrong_device
from drivers.roles import Identity

TEMPERATURE, CONFIGURATION, HIGH_LIMIT, DEVICE_ID = 0x00, 0x01, 0x02, 0x0F
LSB_C = 7.8125e-3
NO_CONVERSION = b"\x80\x00"
DATA_READY = 0x2000
# Continuous, 1 s cycle, mean of 8: the power-on value, written so that a part set otherwise before is put right.
SETTING = 0x0220
CYCLE_S = 1.0
SETTING_MASK = 0x0FFC  # the rest are flags
PATTERNS = (0x5555, 0xAAAA)


class Tmp117Options(DriverOptions):
    max_age_s: float = Field(default=3.0, gt=CYCLE_S, description="s; an older reading is refused as stale")


class Tmp117:
    """One temperature (role TemperatureSensor)."""

    Options = Tmp117Options

    def __init__(self, name: str, address: str, buses: BusPool, options: Tmp117Options) -> None:
        self.name = name
        self.address = address
        self._options = options
        self._clock = buses.clock
        self._i2c = buses.i2c(address, name)
        self._fresh_at = 0.0
        self._identity = 0x0117

    async def open(self) -> Identity:
        """Raises WrongDevice, BusFault, Timeout."""
        expected = "TMP117 (0x117 at 0x0F)"
        found = await identify(self.name, self.address, expected, self._word(DEVICE_ID))
        if found & 0xFFF != 0x117:
            raise wrong_device(self.name, self.address, expected, f"0x{found:04x}")
        self._identity = found
        await self._i2c.write(CONFIGURATION, SETTING.to_bytes(2, "big"), harmless=True)
        self._fresh_at = self._clock()
        return Identity("tmp117", self.address, "TMP117", firmware=f"revision {found >> 12}")

    async def make_safe(self) -> None:
        """It has no outputs."""

    async def close(self) -> None:
        """The bus belongs to others as well."""

    async def read_celsius(self) -> float:
        """The latest conversion; waits for the first one after power-on.

        Raises Stale if there is none within `max_age_s` (the part is in shutdown or was reset), BusFault, Timeout.
        """
        while True:
            # Reading either register clears the flag, so the flag is read first and belongs to the value after it.
            ready = await self._word(CONFIGURATION) & DATA_READY
            raw = await self._i2c.read(TEMPERATURE, 2)
            now = self._clock()
            if ready:
                self._fresh_at = now
            if now - self._fresh_at > self._options.max_age_s:
                raise Stale(f"{self.name} at {self.address}: no new conversion for {now - self._fresh_at:.1f} s")
            if raw != NO_CONVERSION:
                return int.from_bytes(raw, "big", signed=True) * LSB_C
            await asyncio.sleep(CYCLE_S / 8)

    async def known_answer(self) -> bool:
        """See the role Probed."""
        return await self._word(DEVICE_ID) == self._identity

    async def check_registers(self) -> list[str]:
        """See the role Checked. The high limit moves an alert flag only, which nothing here uses."""
        wrong = []
        # Reading clears the flag of a conversion; one more conversion sets it again.
        if (found := await self._word(CONFIGURATION) & SETTING_MASK) != SETTING:
            wrong.append(f"configuration reads 0x{found:04x}, not 0x{SETTING:04x}")
        before = await self._word(HIGH_LIMIT)
        for pattern in (*PATTERNS, before):
            await self._i2c.write(HIGH_LIMIT, pattern.to_bytes(2, "big"), harmless=True)
            if (found := await self._word(HIGH_LIMIT)) != pattern:
                wrong.append(f"high limit reads 0x{found:04x} after 0x{pattern:04x}")
        return wrong

    async def _word(self, register: int) -> int:
        return int.from_bytes(await self._i2c.read(register, 2), "big")
