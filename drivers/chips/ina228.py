"""INA228: supply voltage, current, power, die temperature over I2C (TI SBOS945; reference hardware A2, B).

The part has no packet error code. Registers are big-endian.
"""

from __future__ import annotations

import asyncio

from pydantic import Field, model_validator

from drivers.bus.pool import BusPool
from drivers.errors import BusFault
from drivers.options import DriverOptions, identify, wrong_device
from drivers.roles import Identity, RailReading

CONFIG, ADC_CONFIG, SHUNT_CAL, VBUS, DIETEMP, CURRENT, POWER = 0x00, 0x01, 0x02, 0x05, 0x06, 0x07, 0x08
SHUNT_OVER, MANUFACTURER, DEVICE = 0x0C, 0x3E, 0x3F
MAKER = 0x5449
PATTERNS = (0x5555, 0xAAAA)
RESET, ADCRANGE = 0x8000, 0x0010
# Mode 0xF (bus, shunt, temperature, continuous), conversion times 1052 us each, mean of 16.
ADC_SETTING = 0xF << 12 | 5 << 9 | 5 << 6 | 5 << 3 | 2
CYCLE_S = 3 * 1052e-6 * 16
VBUS_LSB_V = 195.3125e-6
DIETEMP_LSB_C = 7.8125e-3


class Ina228Options(DriverOptions):
    shunt_ohm: float = Field(gt=0)
    max_current_a: float = Field(gt=0, description="A at full scale of the current register")

    @property
    def fine(self) -> bool:
        """The +-40.96 mV range is enough."""
        return self.max_current_a * self.shunt_ohm <= 40.96e-3

    @property
    def calibration(self) -> int:
        """SHUNT_CAL = 13107.2e6 * (max / 2^19) * shunt, times 4 in the fine range."""
        return round(13107.2e6 * self.max_current_a / 2**19 * self.shunt_ohm * (4 if self.fine else 1))

    @property
    def current_lsb_a(self) -> float:
        """What a step of the current register really is with the rounded calibration, A."""
        return self.calibration / (13107.2e6 * self.shunt_ohm * (4 if self.fine else 1))

    @model_validator(mode="after")
    def _fits(self) -> Ina228Options:
        if self.max_current_a * self.shunt_ohm > 163.84e-3:
            raise ValueError("max_current_a * shunt_ohm exceeds 163.84 mV, the widest range of the part")
        if not 0 < self.calibration < 0x8000:
            raise ValueError(f"calibration {self.calibration} does not fit 15 bits; change max_current_a")
        return self


class Ina228:
    """One supply rail (role Rail)."""

    Options = Ina228Options

    def __init__(self, name: str, address: str, buses: BusPool, options: Ina228Options) -> None:
        self.name = name
        self.address = address
        self.resets = 0
        """How often the part was found reset and set up again."""
        self._options = options
        self._i2c = buses.i2c(address, name)

    async def open(self) -> Identity:
        """Raises WrongDevice, BusFault, Timeout."""
        expected = "INA228 (0x5449 at 0x3E, 0x228x at 0x3F)"
        maker = await identify(self.name, self.address, expected, self._word(MANUFACTURER))
        device = await identify(self.name, self.address, expected, self._word(DEVICE))
        if maker != MAKER or device >> 4 != 0x228:
            raise wrong_device(self.name, self.address, expected, f"0x{maker:04x}, 0x{device:04x}")
        await self._set_up()
        return Identity("ina228", self.address, "INA228", firmware=f"revision {device & 0xF}")

    async def make_safe(self) -> None:
        """It has no outputs."""

    async def close(self) -> None:
        """The bus belongs to others as well."""

    async def read(self) -> RailReading:
        """The latest means. A part that lost its set-up (brown-out) is set up again before it is read.

        Raises BusFault, Timeout.
        """
        if await self._word(SHUNT_CAL) != self._options.calibration:
            self.resets += 1
            await self._set_up()
        lsb = self._options.current_lsb_a
        return RailReading(
            bus_v=(await self._number(VBUS, 3) >> 4) * VBUS_LSB_V,
            current_a=(await self._number(CURRENT, 3) >> 4) * lsb,
            power_w=int.from_bytes(await self._i2c.read(POWER, 3), "big") * 3.2 * lsb,
            die_temperature_c=await self._number(DIETEMP, 2) * DIETEMP_LSB_C,
        )

    async def known_answer(self) -> bool:
        """See the role Probed."""
        return await self._word(MANUFACTURER) == MAKER

    async def check_registers(self) -> list[str]:
        """See the role Checked. The shunt limit moves an alert flag only, which nothing here uses."""
        wanted = {
            CONFIG: ADCRANGE if self._options.fine else 0,
            ADC_CONFIG: ADC_SETTING,
            SHUNT_CAL: self._options.calibration,
        }
        wrong = []
        for register, value in wanted.items():
            if (found := await self._word(register)) != value:
                wrong.append(f"register 0x{register:02x} reads 0x{found:04x}, not 0x{value:04x}")
        before = await self._word(SHUNT_OVER)
        for pattern in (*PATTERNS, before):
            await self._put(SHUNT_OVER, pattern)
            if (found := await self._word(SHUNT_OVER)) != pattern:
                wrong.append(f"shunt limit reads 0x{found:04x} after 0x{pattern:04x}")
        return wrong

    async def _set_up(self) -> None:
        await self._put(CONFIG, RESET)
        await self._put(CONFIG, ADCRANGE if self._options.fine else 0)
        await self._put(ADC_CONFIG, ADC_SETTING)
        await self._put(SHUNT_CAL, self._options.calibration)
        for register, wanted in ((ADC_CONFIG, ADC_SETTING), (SHUNT_CAL, self._options.calibration)):
            found = await self._word(register)
            if found != wanted:
                raise BusFault(
                    f"{self.name} at {self.address}: register 0x{register:02x} reads 0x{found:04x} after 0x{wanted:04x}"
                )
        await asyncio.sleep(CYCLE_S)  # until the first mean is there

    async def _word(self, register: int) -> int:
        return int.from_bytes(await self._i2c.read(register, 2), "big")

    async def _number(self, register: int, length: int) -> int:
        return int.from_bytes(await self._i2c.read(register, length), "big", signed=True)

    async def _put(self, register: int, value: int) -> None:
        await self._i2c.write(register, value.to_bytes(2, "big"), harmless=True)
