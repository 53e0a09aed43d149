"""Blocks that are closed and not done: a task for each, their mail, their place in the line, what is told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from qmodd.keys.blocks import RawBlock
from qmodd.keys.conversation import BlockAborted, Desk
from qmodd.keys.estimation import binary_entropy
from qmodd.keys.material import Held
from qmodd.keys.records import BlockRecord
from qmodd.keys.settings import EngineStatus
from qmodd.keys.stations import Line, Mail

Distil = Callable[[RawBlock], Awaitable[BlockRecord]]


class InWork:
    """Of one session. `distil` raises BlockAborted for a block that becomes no key; `done` is called after each."""

    def __init__(self, desk: Desk, status: EngineStatus, distil: Distil, done: Callable[[], None]) -> None:
        self.mail, self.line = Mail(), Line()
        self._desk, self._status, self._distil, self._done = desk, status, distil, done
        # Oldest first; the first `_begun` have a task.
        self._blocks: list[RawBlock] = []
        self._begun = 0
        self._more = asyncio.Event()

    def add(self, blocks: Sequence[RawBlock]) -> None:
        for raw in blocks:
            self.mail.open(raw.run, raw.block)
            self._blocks.append(raw)
            self._status.blocks_in_flight += 1
            self._desk.on_event("block.closed", {"run": raw.run, "block": raw.block})
        if blocks:
            self._more.set()

    async def run(self, group: asyncio.TaskGroup) -> None:
        """A task for every block; the line of stations says how far each may go."""
        while True:
            while self._begun == len(self._blocks):
                self._more.clear()
                await self._more.wait()
            raw = self._blocks[self._begun]
            self._begun += 1
            group.create_task(self._one(raw), name=f"block {raw.run}/{raw.block}")

    def drop(self, why: str) -> None:
        """The session is over, and with it every block that is not prepared."""
        for raw in self._blocks:
            if isinstance(raw.material, Held):
                self._desk.kernels.release(raw.material)
            self._aborted(raw, why)
        self._blocks.clear()
        self._begun = 0
        self._status.blocks_in_flight = 0

    async def _one(self, raw: RawBlock) -> None:
        try:
            record = await self._distil(raw)
        except BlockAborted as e:
            self._aborted(raw, str(e))
        else:
            self._committed(record)
        self.mail.close(raw.run, raw.block)
        self._blocks.remove(raw)
        self._begun -= 1
        self._status.blocks_in_flight -= 1
        self._done()

    def _aborted(self, raw: RawBlock, why: str) -> None:
        self._status.blocks_aborted += 1
        self._status.last_abort = why
        self._desk.on_event("block.aborted", {"run": raw.run, "block": raw.block, "why": why})

    def _committed(self, record: BlockRecord) -> None:
        s = self._status
        s.blocks_committed += 1
        s.qber_z, s.qber_x = record.qber_z, record.qber_x
        ideal = sum(record.n_z) * binary_entropy(record.qber_z)
        s.efficiency = record.leak_bits / ideal if ideal > 0 else 0.0
        s.secret_bps = record.secret_bits / record.seconds if record.seconds > 0 else 0.0
        self._desk.on_event(
            "block.committed",
            {
                "block": record.uuid,
                "keys": record.keys,
                "length_bits": record.length_bits,
                "leak_bits": record.leak_bits,
                "qber_z": record.qber_z,
                "qber_x": record.qber_x,
            },
        )
