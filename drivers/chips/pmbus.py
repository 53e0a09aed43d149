"""PMBus supply with a fan (PMBus specification part II, revision 1.3.1; reference hardware A8).

Every transaction carries a packet error code. LINEAR11 words are not unique, so that values are compared, never words.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

from pydantic import Field

from drivers.bus.pool import BusPool
from drivers.errors import BusFault, OutOfRange, Refused
from drivers.options import DriverOptions, identify, wrong_device
from drivers.roles import Identity

PAGE, CLEAR_FAULTS, CAPABILITY, VOUT_MODE = 0x00, 0x03, 0x19, 0x20
FAN_CONFIG, FAN_COMMAND = 0x3A, 0x3B
STATUS_WORD, STATUS_CML, STATUS_FAN = 0x79, 0x7E, 0x81
READ_VIN, READ_IIN, READ_VOUT, READ_IOUT, READ_TEMPERATURE, READ_FAN, READ_POUT, READ_PIN = (
    *(0x88, 0x89, 0x8B, 0x8C, 0x8D, 0x90),
    *(0x96, 0x97),
)
MFR_ID, MFR_MODEL, MFR_REVISION, MFR_SERIAL = 0x99, 0x9A, 0x9B, 0x9E
PEC_SUPPORTED = 0x80
FAN_INSTALLED, FAN_RPM_MODE = 0x80, 0x40
BLOCK_MAX = 32


class SupplyStatus(IntFlag):
    """STATUS_WORD (PMBus part II, 17.2)."""

    NONE_OF_THE_ABOVE = 0x0001
    CML = 0x0002
    TEMPERATURE = 0x0004
    VIN_UV = 0x0008
    IOUT_OC = 0x0010
    VOUT_OV = 0x0020
    OFF = 0x0040
    BUSY = 0x0080
    UNKNOWN = 0x0100
    OTHER = 0x0200
    FAN = 0x0400
    POWER_GOOD_NEGATED = 0x0800
    MFR = 0x1000
    INPUT = 0x2000
    IOUT_POUT = 0x4000
    VOUT = 0x8000


@dataclass(frozen=True)
class SupplyReading:
    """V, A, W, degrees Celsius, revolutions per minute; `status` is the latched STATUS_WORD."""

    vin_v: float
    iin_a: float
    vout_v: float
    iout_a: float
    pin_w: float
    pout_w: float
    temperature_c: float
    fan_rpm: float
    status: SupplyStatus


def from_linear11(word: int) -> float:
    """Value of a LINEAR11 word: 5-bit exponent, 11-bit mantissa, both two's complement (part II, 7.3)."""
    exponent, mantissa = word >> 11, word & 0x7FF
    exponent -= 32 if exponent > 15 else 0
    mantissa -= 2048 if mantissa > 1023 else 0
    return float(mantissa * 2.0**exponent)


def to_linear11(value: float) -> int:
    """Word with the finest exponent that holds the value. Raises ValueError beyond +-33 521 664."""
    for exponent in range(-16, 16):
        mantissa = round(value / 2.0**exponent)
        if -1024 <= mantissa <= 1023:
            return (exponent & 0x1F) << 11 | mantissa & 0x7FF
    raise ValueError(f"{value} does not fit LINEAR11")


def from_linear16(word: int, mode: int) -> float:
    """Value of a LINEAR16 output voltage with VOUT_MODE (part II, 8.4.1). Raises BusFault for another format."""
    if mode >> 5:
        raise BusFault(f"VOUT_MODE 0x{mode:02x} is not the linear format")
    exponent = mode & 0x1F
    exponent -= 32 if exponent > 15 else 0
    return float(word * 2.0**exponent)


class PmbusOptions(DriverOptions):
    fan_min_rpm: float = Field(default=1500.0, ge=0, description="slowest setting that is let through, rpm")
    fan_max_rpm: float = Field(default=12000.0, gt=0, description="fastest setting that is let through, rpm")
    fan_safe_rpm: float = Field(default=6000.0, gt=0, description="after open and on safe state, rpm")


class PmbusSupply:
    """One supply and its fan (role Supply)."""

    Options = PmbusOptions

    def __init__(self, name: str, address: str, buses: BusPool, options: PmbusOptions) -> None:
        self.name = name
        self.address = address
        self._options = options
        self._i2c = buses.i2c(address, name, pec=True)
        self._mode = 0
        self._capability = 0

    async def open(self) -> Identity:
        """Identify, clear latched faults, fan to its safe speed. Raises WrongDevice, BusFault, Timeout."""
        expected = "PMBus supply with packet error code (CAPABILITY bit 7)"
        capability = await identify(self.name, self.address, expected, self._byte(CAPABILITY))
        if not capability & PEC_SUPPORTED:
            raise wrong_device(self.name, self.address, expected, f"CAPABILITY 0x{capability:02x}")
        self._capability = capability
        await self._i2c.write(PAGE, b"\x00", harmless=True)
        self._mode = await self._byte(VOUT_MODE)
        maker, model = await self._text(MFR_ID), await self._text(MFR_MODEL)
        serial, revision = await self._text(MFR_SERIAL), await self._text(MFR_REVISION)
        await self.clear_faults()
        await self.make_safe()
        return Identity("pmbus", self.address, f"{maker} {model}".strip(), serial, revision)

    async def make_safe(self) -> None:
        """The supply feeds the controller itself: only the fan is brought to its safe speed."""
        await self.set_fan(self._options.fan_safe_rpm)

    async def close(self) -> None:
        """The bus belongs to others as well."""

    async def read(self) -> SupplyReading:
        """Raises BusFault, Timeout."""
        return SupplyReading(
            vin_v=await self._linear(READ_VIN),
            iin_a=await self._linear(READ_IIN),
            vout_v=from_linear16(await self._word(READ_VOUT), self._mode),
            iout_a=await self._linear(READ_IOUT),
            pin_w=await self._linear(READ_PIN),
            pout_w=await self._linear(READ_POUT),
            temperature_c=await self._linear(READ_TEMPERATURE),
            fan_rpm=await self._linear(READ_FAN),
            status=SupplyStatus(await self._word(STATUS_WORD)),
        )

    async def clear_faults(self) -> None:
        await self._i2c.write(CLEAR_FAULTS, b"", harmless=True)

    async def set_fan(self, rpm: float) -> None:
        """Read back after writing. Raises OutOfRange (nothing written), Refused, BusFault, Timeout."""
        low, high = self._options.fan_min_rpm, self._options.fan_max_rpm
        if not low <= rpm <= high:
            raise OutOfRange(f"{self.name}.fan: {rpm:g} rpm is outside {low:g} to {high:g} rpm")
        config = await self._byte(FAN_CONFIG)
        if not config & FAN_INSTALLED:
            raise Refused(f"{self.name} at {self.address}: no fan is installed (FAN_CONFIG_1_2 0x{config:02x})")
        if not config & FAN_RPM_MODE:
            await self._i2c.write(FAN_CONFIG, bytes([config | FAN_RPM_MODE]), harmless=True)
        await self._i2c.write(FAN_COMMAND, to_linear11(rpm).to_bytes(2, "little"), harmless=True)
        back = await self._linear(FAN_COMMAND)
        if abs(back - rpm) > max(0.01 * rpm, 16.0):
            raise Refused(f"{self.name} at {self.address}: fan set to {rpm:g} rpm, FAN_COMMAND_1 reads {back:g}")

    async def communication_errors(self) -> int:
        """STATUS_CML: 0x80 bad command, 0x40 bad data, 0x20 wrong packet error code."""
        return await self._byte(STATUS_CML)

    async def fan_wanted(self) -> float:
        """The speed that the fan is set to, rpm. Raises BusFault, Timeout."""
        return await self._linear(FAN_COMMAND)

    async def known_answer(self) -> bool:
        """See the role Probed."""
        return await self._byte(CAPABILITY) == self._capability

    async def check_registers(self) -> list[str]:
        """See the role Checked."""
        wrong = []
        if page := await self._byte(PAGE):
            wrong.append(f"PAGE reads {page}, not 0")
        if (mode := await self._byte(VOUT_MODE)) != self._mode:
            wrong.append(f"VOUT_MODE reads 0x{mode:02x}, not 0x{self._mode:02x}")
        if not (config := await self._byte(FAN_CONFIG)) & FAN_RPM_MODE:
            wrong.append(f"FAN_CONFIG_1_2 reads 0x{config:02x}: not set to revolutions per minute")
        return wrong

    async def _byte(self, command: int) -> int:
        return (await self._i2c.read(command, 1))[0]

    async def _word(self, command: int) -> int:
        return int.from_bytes(await self._i2c.read(command, 2), "little")

    async def _linear(self, command: int) -> float:
        return from_linear11(await self._word(command))

    async def _text(self, command: int) -> str:
        """Block read. Its length comes first and is part of what the packet error code covers."""
        length = (await self._i2c.read(command, 1, unchecked=True))[0]
        if not 0 < length <= BLOCK_MAX:
            raise BusFault(f"{self.name} at {self.address}: block of {length} bytes at command 0x{command:02x}")
        block = await self._i2c.read(command, length + 1)
        return block[1:].decode("ascii", "replace").strip()
