"""Cryostat monitor, Lake Shore 336 command set over VISA (reference hardware A7, B). It has no error queue."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from drivers.bus.pool import BusPool
from drivers.bus.visa import VisaIo
from drivers.errors import BusFault, Stale
from drivers.options import DriverOptions, identify, wrong_device
from drivers.roles import Identity

MODELS = ("MODEL335", "MODEL336", "MODEL350")
READING_FAULTS = {
    1: "invalid reading",
    16: "temperature under range",
    32: "temperature over range",
    64: "sensor units zero (shorted)",
    128: "sensor units over range (open)",
}
HEATER_FAULTS = {1: "open heater load", 2: "short"}


@dataclass(frozen=True)
class CryostatReading:
    """Temperature of the detectors, K; heater range 0 to 3 and its fault in words, "" for none."""

    kelvin: float
    heater_range: int
    heater_fault: str


class CryostatOptions(DriverOptions):
    sensor: str = Field(default="A", pattern=r"^[A-D]$")
    loop: int = Field(default=1, ge=1, le=2)


class Cryostat:
    """Role CryostatMonitor. It only watches: the cryostat's own controller keeps its temperature."""

    Options = CryostatOptions

    def __init__(self, name: str, address: str, buses: BusPool, options: CryostatOptions) -> None:
        self.name = name
        self.address = address
        self._options = options
        self._visa = buses.visa(address, name)
        self._identity = ""

    async def open(self) -> Identity:
        """Raises WrongDevice, BusFault, Timeout."""
        expected = f"LSCI {'/'.join(MODELS)}"
        answer = await identify(self.name, self.address, expected, self._query("*IDN?"))
        fields = [f.strip() for f in answer.split(",")]
        if len(fields) != 4 or fields[0] != "LSCI" or fields[1] not in MODELS:
            raise wrong_device(self.name, self.address, expected, repr(answer))
        self._identity = answer
        return Identity("cryostat", self.address, fields[1], fields[2], fields[3])

    async def make_safe(self) -> None:
        """It has no outputs that a module uses."""

    async def close(self) -> None:
        await self._visa.close()

    async def known_answer(self) -> bool:
        """See the role Probed."""
        return await self._query("*IDN?") == self._identity

    async def read(self) -> CryostatReading:
        """Raises Stale when the instrument itself says that its reading is none, BusFault, Timeout."""
        s, loop = self._options.sensor, self._options.loop
        status = int(await self._number(f"RDGST? {s}"))
        if status:
            words = ", ".join(text for bit, text in READING_FAULTS.items() if status & bit) or f"status {status}"
            raise Stale(f"{self.name} at {self.address}: sensor {s}: {words}")
        fault = int(await self._number(f"HTRST? {loop}"))
        return CryostatReading(
            kelvin=await self._number(f"KRDG? {s}"),
            heater_range=int(await self._number(f"RANGE? {loop}")),
            heater_fault=HEATER_FAULTS.get(fault, f"status {fault}") if fault else "",
        )

    async def _number(self, command: str) -> float:
        answer = await self._query(command)
        try:
            return float(answer)
        except ValueError:
            raise BusFault(f"{self.name} at {self.address}: {command} answered {answer!r}") from None

    async def _query(self, command: str) -> str:
        def work(io: VisaIo) -> bytes:
            return io.query(command.encode("ascii") + b"\r\n")

        return (await self._visa.run(work, deadline_s=1.0, harmless=True)).decode("ascii", "replace").strip()
