"""Bob's time tagger: SCPI and binary blocks over VISA (reference pair B2)."""

from __future__ import annotations

import asyncio

import numpy as np
import numpy.typing as npt
from pydantic import Field

from drivers.bus.pool import BusPool
from drivers.errors import BusFault
from drivers.instruments.scpi import Scpi
from drivers.instruments.tag_block import Stream, unpack_tags
from drivers.options import DriverOptions
from drivers.quantity import Limits, Quantity
from drivers.roles import Identity, TagBlock

CHANNELS = ("DZ", "DX0", "DX1")
"""Inputs 1 to 3; their index is the channel number in a TagBlock."""


class TimeTaggerOptions(DriverOptions):
    threshold_v: float = Field(default=0.1, description="V, of all three inputs, set at open")
    threshold_max_v: float = Field(default=2.5, gt=0)
    max_delay_ps: int = Field(default=1_000_000, gt=0)
    max_block_bytes: int = Field(default=16 << 20, ge=4096, description="most bytes of tags in one read")
    read_deadline_s: float = Field(default=4.0, gt=0)


class TimeTagger:
    """Role TagSource. It has no outputs; safe is stopped."""

    Options = TimeTaggerOptions

    def __init__(self, name: str, address: str, buses: BusPool, options: TimeTaggerOptions) -> None:
        self.name = name
        self.address = address
        self._options = options
        self._scpi = Scpi(name, buses.visa(address, name))
        self._stream = Stream()
        self._lock = asyncio.Lock()
        high, delay = options.threshold_max_v, float(options.max_delay_ps)
        self._threshold = Quantity(f"{name}.threshold", Limits("V", -high, high, 0.0))
        self._delay = Quantity(f"{name}.delay", Limits("ps", -delay, delay, 0.0))

    async def open(self) -> Identity:
        """Raises WrongDevice, Refused, BusFault, Timeout, OutOfRange."""
        identity = await self._scpi.identify("time_tagger", "QMODD", "TIME-TAGGER")
        await self.make_safe()
        for channel in range(len(CHANNELS)):
            await self.set_threshold(channel, self._options.threshold_v)
        return identity

    async def make_safe(self) -> None:
        await self.stop()

    async def close(self) -> None:
        await self._scpi.visa.close()

    async def known_answer(self) -> bool:
        """See the role Probed."""
        return await self._scpi.known_answer()

    async def errors(self) -> list[str]:
        """What the instrument's error queue holds; it is empty afterwards. Raises BusFault, Timeout."""
        return await self._scpi.errors()

    async def run(self) -> None:
        async with self._lock:
            await self._scpi.set("TAGS:RUN")
            self._stream = Stream()

    async def stop(self) -> None:
        await self._scpi.set("TAGS:STOP")

    async def now_ps(self) -> int:
        return (await self._scpi.query_integers("TAGS:TIME?", 1))[0]

    async def read(self) -> TagBlock:
        """See the role. A block with a wrong CRC is thrown away: the next one then shows the gap.

        Raises BusFault (two broken blocks in a row), Timeout; what was lost shows as a gap in the next block.
        """
        async with self._lock:
            try:
                return await self._take()
            except BusFault:
                return await self._take()

    async def set_gate(self, open_ps: int, period_ps: int) -> None:
        """Strobe; (0, 0) is always open. Raises Refused, BusFault, Timeout."""
        answer = await self._scpi.set(f"TAGS:GATE {int(open_ps)},{int(period_ps)}", verify="TAGS:GATE?")
        if answer.replace(" ", "") != f"{int(open_ps)},{int(period_ps)}":
            raise BusFault(f"{self.name} at {self.address}: gate is {answer!r} after {open_ps},{period_ps} was set")

    async def counts(self) -> npt.NDArray[np.int64]:
        return np.array(await self._scpi.query_integers("COUN?", 3), np.int64)

    async def rates(self) -> npt.NDArray[np.float64]:
        """Clicks per second per channel as the device measures them; shape (3,)."""
        return np.array(await self._scpi.query_numbers("COUN:RATE?", 3))

    async def fill(self) -> tuple[int, int, int]:
        """(records waiting, records the FIFO holds, clicks lost since RUN)."""
        waiting, depth, lost = [(await self._scpi.query_integers(f"TAGS:{q}?", 1))[0] for q in ("AVA", "DEPT", "LOST")]
        return waiting, depth, lost

    async def questionable(self) -> int:
        """STAT:QUES bits: 0 reference unlocked. Raises Refused, BusFault, Timeout."""
        return (await self._scpi.query_integers("STAT:QUES?", 1))[0]

    async def set_threshold(self, channel: int, volts: float) -> None:
        """Channel 0 to 2. Raises OutOfRange (nothing written), Refused, BusFault, Timeout."""
        volts = self._threshold.check(volts)
        await self._scpi.set(f"INP{self._input(channel)}:THR {volts!r}")

    async def set_delay(self, channel: int, picoseconds: int) -> None:
        """Added to the times of channel 0 to 2. Raises OutOfRange (nothing written), Refused, BusFault, Timeout."""
        whole = int(self._delay.check(picoseconds))
        await self._scpi.set(f"INP{self._input(channel)}:DEL {whole}")

    async def _take(self) -> TagBlock:
        command = f"TAGS:DATA? {self._options.max_block_bytes}".encode()
        data = await self._scpi.query_block(command, deadline_s=self._options.read_deadline_s)
        return self._stream.take(unpack_tags(data, f"{self.name} at {self.address}"))

    def _input(self, channel: int) -> int:
        if channel not in range(len(CHANNELS)):
            raise ValueError(f"{self.name} has no channel {channel}, only 0 to {len(CHANNELS) - 1}")
        return channel + 1
