"""Universal counter, Keysight 53220A family: totalises pulses over SCPI (reference hardware A7, B)."""

from __future__ import annotations

import asyncio

from pydantic import Field

from drivers.bus.pool import BusPool
from drivers.errors import BusFault, OutOfRange
from drivers.instruments.scpi import Scpi
from drivers.options import DriverOptions, identify, wrong_device
from drivers.roles import Identity

GATE_S = (100e-6, 1000.0)
# With two inputs each; a 53210A has one.
MODELS = ("53220A", "53230A")
INPUTS = (1, 2)
# FETCh? asked while the gate is open is an error, so the gate's time is waited for, and a little more.
AFTER_GATE_S = 0.005


class CounterOptions(DriverOptions):
    channel: int = Field(default=1, ge=1, le=2, description="input that is read where none is named")
    level_v: float = Field(default=0.05, ge=-5.0, le=5.0, description="trigger level, V")
    impedance_ohm: int = Field(default=50, description="50 or 1000000")


class Counter:
    """An independent witness of a detector's clicks (role PulseCounter)."""

    Options = CounterOptions

    def __init__(self, name: str, address: str, buses: BusPool, options: CounterOptions) -> None:
        self.name = name
        self.address = address
        self._options = options
        self._scpi = Scpi(name, buses.visa(address, name))
        self._turn = asyncio.Lock()

    async def open(self) -> Identity:
        """Identify, then coupling, impedance, level and slope of both inputs. Raises WrongDevice, Refused, Timeout."""
        expected = f"Keysight {'/'.join(MODELS)}"
        answer = await identify(self.name, self.address, expected, self._scpi.query("*IDN?"))
        fields = [f.strip() for f in answer.split(",")]
        if len(fields) != 4 or fields[1] not in MODELS:
            raise wrong_device(self.name, self.address, expected, repr(answer))
        self._scpi.known_as(answer)
        o = self._options
        await self._scpi.set("*RST")
        for channel in INPUTS:
            await self._scpi.set(f"INP{channel}:COUP DC;IMP {o.impedance_ohm};LEV {o.level_v:.4g};SLOP POS")
        return Identity("counter", self.address, fields[1], fields[2], fields[3])

    async def make_safe(self) -> None:
        """It has no outputs."""

    async def close(self) -> None:
        await self._scpi.visa.close()

    async def known_answer(self) -> bool:
        """See the role Probed."""
        return await self._scpi.known_answer()

    async def errors(self) -> list[str]:
        """What the instrument's error queue holds; it is empty afterwards. Raises BusFault, Timeout."""
        return await self._scpi.errors()

    async def count(self, gate_s: float, channel: int | None = None) -> float:
        """Pulses on an input (1 or 2; None: the configured one) within a gate that opens now.

        Raises OutOfRange, Refused, BusFault, Timeout.
        """
        chosen = self._options.channel if channel is None else channel
        if chosen not in INPUTS:
            raise OutOfRange(f"{self.name}: input {chosen} is none of {INPUTS[0]}, {INPUTS[1]}")
        if not GATE_S[0] <= gate_s <= GATE_S[1]:
            raise OutOfRange(f"{self.name}: gate {gate_s:g} s is outside {GATE_S[0]:g} to {GATE_S[1]:g} s")
        async with self._turn:
            await self._scpi.set(f"CONF:TOT:TIM {gate_s:.6g},(@{chosen})")
            await self._scpi.set("INIT")
            await asyncio.sleep(gate_s + AFTER_GATE_S)
            answer = await self._scpi.query("FETC?", harmless=False)
        try:
            return float(answer)
        except ValueError:
            raise BusFault(f"{self.name} at {self.address}: FETC? answered {answer!r}") from None
