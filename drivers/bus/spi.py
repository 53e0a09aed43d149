"""SPI over spidev.SpiDev: full-duplex frames, one chip select a bus object."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from drivers.bus.lane import Lane
from drivers.bus.libraries import SpiLike
from drivers.bus.port import Port, io_fault
from drivers.errors import BusFault, DriverError, Timeout

DEADLINE_S = 0.25


class SpiBus:
    """One chip select. `mode` 0 to 3 and `max_hz` are set whenever the device file is opened."""

    def __init__(
        self, address: str, opener: Callable[[], SpiLike], lane: Lane, *, mode: int = 0, max_hz: int = 1_000_000
    ) -> None:
        self.address = address
        self.lane = lane
        self._opener = opener
        self._mode = mode
        self._max_hz = max_hz
        self.port: Port[SpiLike] = Port(lane, self._open, (OSError,), self._classify)

    async def transfer(
        self, *frames: bytes, harmless: bool = False, check: Callable[[list[bytes]], None] | None = None
    ) -> list[bytes]:
        """Send frames back to back, chip select high between them; returns what came in during each.

        `check` judges the answers inside the transaction, so that a BusFault it raises is retried if the transfer is
        `harmless`. Raises BusFault, Timeout, or what `check` raises.
        """

        def work(spi: SpiLike) -> list[bytes]:
            answers = self._transfer(spi, frames)
            if check is not None:
                check(answers)
            return answers

        return await self.port.run(work, deadline_s=DEADLINE_S, harmless=harmless)

    async def close(self) -> None:
        await self.port.close()

    def _open(self) -> SpiLike:
        spi = self._opener()
        spi.mode = self._mode
        spi.max_speed_hz = self._max_hz
        return spi

    def _transfer(self, spi: SpiLike, frames: Sequence[bytes]) -> list[bytes]:
        answers = [bytes(spi.xfer2(list(frame))) for frame in frames]
        for frame, answer in zip(frames, answers, strict=True):
            if len(answer) != len(frame):
                raise BusFault(f"{self.lane.name}: {len(answer)} bytes came back for {len(frame)}")
        return answers

    def _classify(self, error: Exception) -> tuple[DriverError, bool]:
        if isinstance(error, DriverError):
            return error, True
        if isinstance(error, TimeoutError):
            return Timeout(f"{self.lane.name}: the bus timed out"), False
        return io_fault(self.lane.name, error), False
