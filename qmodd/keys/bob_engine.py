"""Bob's key engine: finds the frames, turns clicks into detections, keeps the clock, asks for calibration light."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from drivers.errors import Refused
from drivers.roles import LightMode, TagSource
from qmodd.channel import ChannelDown, MessageChannel
from qmodd.keys import protocol
from qmodd.keys.authentication import Direction, SessionBroken, Transcript
from qmodd.keys.blocks import BlockBuilder, RawBlock
from qmodd.keys.bob_distil import BobDistiller
from qmodd.keys.conversation import Desk
from qmodd.keys.counts import BatchReport
from qmodd.keys.engine_common import RUN_FAULTS, Engine, RunEnded, block_id
from qmodd.keys.fields import MAX_TEXT, ProtocolError
from qmodd.keys.frames import FrameBatch, FrameCounters
from qmodd.keys.pilot import LEAST_EVERY, PilotCounts, kept_out, without_pilot
from qmodd.keys.protocol import (
    Basis,
    Commit,
    Detect,
    Intensities,
    Light,
    LightNo,
    LightOk,
    Message,
    NotSynced,
    Plan,
    Stop,
    Synced,
    Tally,
    Welcome,
)
from qmodd.keys.receiving import Reading, Receiver, TagFeed
from qmodd.keys.records import BlockRecord
from qmodd.keys.settings import EngineSettings, OnBatch, Phase
from qmodd.keys.sifting import Sifted, decode_basis, sift_bob
from qmodd.keys.tracking import frame_lost, slots_shifted

_PS = 1e-12
_BATCH_PATIENCE_S = 30.0


class NewPlan(Exception):
    """Alice has begun another run."""

    def __init__(self, plan: Plan, data: bytes) -> None:
        super().__init__("another run begins")
        self.plan, self.data = plan, data


class BobEngine(Engine):
    """During a run the engine alone reads the tagger; between runs it leaves it to others."""

    ME = Direction.BOB

    def __init__(
        self, settings: EngineSettings, channel: MessageChannel, desk: Desk, on_batch: OnBatch, tags: TagSource
    ) -> None:
        super().__init__(settings, channel, desk, on_batch)
        self._tags = tags
        self._distiller = BobDistiller(desk, self.session.send, self._distil_inbox)
        self._lights: dict[int, asyncio.Future[None]] = {}
        self._light_number = 0
        # Told of a batch's pilot clicks and when they were read, before anything is said about the batch. True keeps
        # the batch out of the key, which rests on the pilot alone.
        self.on_pilot: Callable[[PilotCounts, float], bool | None] = lambda counts, read_at: None
        # When the batch was read whose counts `on_batch` is told; monotonic s.
        self.batch_end_s = 0.0

    async def request_light(self, mode: LightMode, state: int = 0, intensity: int = 0, scale: float = 1.0) -> None:
        """Ask Alice for calibration light. Raises Refused with her reason, or if she cannot be asked."""
        self._light_number += 1
        number = self._light_number
        answer = self._lights[number] = asyncio.get_running_loop().create_future()
        try:
            await self.session.send(Light(number, int(mode), state, intensity, scale))
            await answer
        except (ChannelDown, SessionBroken) as e:
            raise Refused(f"no light from the far module: {e}") from e
        finally:
            self._lights.pop(number, None)

    async def _tasks(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._distiller = BobDistiller(self.desk, self.session.send, self._distil_inbox)
        group.create_task(self._sift_loop(), name="sift")

    def _lost(self, why: str) -> None:
        super()._lost(why)
        for answer in self._lights.values():
            if not answer.done():
                answer.set_exception(Refused(f"no light from the far module: {why}"))

    async def _dispatch(self, message: Message, data: bytes) -> None:
        match message:
            case Plan() | Basis() | Intensities() | Stop():
                self._sift_inbox.put_nowait((message, data))
                self._wake.set()
            case LightOk():
                self._answer_light(message.number, None)
            case LightNo():
                self._answer_light(message.number, message.why)
            case Commit():
                block_id(message.uuid)
                await self._distiller.on_commit(message)
                self._check_settled()
            case _:
                raise ProtocolError(f"{type(message).__name__} is not for Bob")

    def _answer_light(self, number: int, why: str | None) -> None:
        answer = self._lights.get(number)
        if answer is None or answer.done():
            return
        if why is None:
            answer.set_result(None)
        else:
            answer.set_exception(Refused(f"the far module refuses light: {why}"))

    async def _on_welcome(self, welcome: Welcome) -> None:
        self._check_settled()

    def _check_settled(self) -> None:
        if self._settled or self._welcome is None or self.desk.journal.in_doubt():
            return
        self._settled = True
        self._compare_pools()
        self._changed.set()

    async def _distil(self, raw: RawBlock) -> BlockRecord:
        return await self._distiller.distil(raw)

    # --- runs ---

    async def _sift_loop(self) -> None:
        message, data = await self._sift_inbox.get()
        while True:
            if not isinstance(message, Plan):
                message, data = await self._sift_inbox.get()
                continue
            try:
                await self._try_run(message, data)
                message, data = await self._sift_inbox.get()
            except NewPlan as e:
                message, data = e.plan, e.data

    async def _try_run(self, plan: Plan, data: bytes) -> None:
        self.status.run = plan.run
        try:
            await self._one_run(plan, data)
        except RunEnded as e:
            self._ended(plan, str(e))
        except RUN_FAULTS as e:
            await self._try_send(NotSynced(plan.run, str(e)[:MAX_TEXT]))
            self._ended(plan, str(e))
        finally:
            self.status.block_progress = 0.0

    def _ended(self, plan: Plan, why: str) -> None:
        self._event("run.ended", run=plan.run, why=why)
        self._phase(Phase.WAITING if self._wanted else Phase.IDLE, why)

    async def _one_run(self, plan: Plan, data: bytes) -> None:
        # Anew for every run: between runs the tagger belongs to others, who may have stopped or restarted it.
        await self._tags.run()
        heard_at = await self._tags.now_ps()
        self._check_plan(plan)
        self._phase(Phase.SYNCING, "looking for the public string")
        gate = self.settings.gate
        await self._tags.set_gate(*gate)
        try:
            receiver = Receiver(self.settings, self.desk.kernels, plan)
            await receiver.synchronise(self._tags, heard_at)
            self.status.clock_y = receiver.y
            await self.session.send(Synced(plan.run, receiver.next_slot))
            self._phase(Phase.KEYING, "synchronised")
            await self._sift(plan, data, receiver)
        finally:
            if gate != (0, 0):
                await self._tags.set_gate(0, 0)

    def _check_plan(self, plan: Plan) -> None:
        why = self._why_no_keys()
        if why is not None:
            raise ValueError(f"not ready: {why}")
        s = self.settings
        for name in ("proof", "eps_sec", "eps_cor", "n_z", "key_bits", "replenish_bytes", "half_gate_ps", "holdoff"):
            if getattr(plan, name) != getattr(s, name):
                raise ValueError(
                    f"the modules' settings differ: {name} is {getattr(plan, name)} at Alice and "
                    f"{getattr(s, name)} at Bob"
                )
        if not (plan.period_ps >= 3 * plan.bin_ps > 0 and plan.slot_now < plan.sync_slot < plan.key_slot):
            raise ValueError("the plan's times contradict each other")
        if plan.pilot_every and plan.pilot_every < LEAST_EVERY:
            raise ValueError(f"a pilot every {plan.pilot_every} slots leaves none for keys")

    async def _sift(self, plan: Plan, data: bytes, receiver: Receiver) -> None:
        s = self.settings
        builder = BlockBuilder(plan, data, began=self.desk.clock.monotonic())
        feed = TagFeed(self._tags, self.desk.clock, s.batch_s, s.queue_batches, self._wake.set)
        feeding = self._group.create_task(feed.run(), name="tags")
        try:
            while True:
                await self._one_batch(builder, receiver, feed)
        finally:
            feeding.cancel()

    async def _one_batch(self, builder: BlockBuilder, receiver: Receiver, feed: TagFeed) -> None:
        reading = await self._next_tags(builder, feed)
        first = receiver.next_slot
        batch = await receiver.accept(reading, self.flags)
        if batch.end_slot == first:
            return
        self.batch_end_s = reading.read_at
        self._see_light(batch.counters)
        await self._check_frame(builder, frame_lost(batch.counters))
        if every := builder.plan.pilot_every:
            batch, pilot = without_pilot(batch, every, builder.plan.period_ps * _PS)
            if self.on_pilot(pilot, reading.read_at):
                batch = kept_out(batch)
        said, sifted, report = await self._exchange(builder, batch)
        await self._check_frame(builder, slots_shifted(report, builder.plan.mu, builder.plan.p_mu))
        # The blocks must be closed here before Alice, who hears TALLY, opens one of them.
        tally = protocol.encode(Tally(builder.plan.run, report.to_bytes()))
        said.add(Direction.BOB, tally)
        self._queue_closed(builder.add(said, sifted, self.desk.clock.monotonic()))
        await self.session.send(tally)
        why = self._why_no_keys()
        if why is not None:
            raise ValueError(why)
        s = self.status
        self._sifted(sifted.n_z, (batch.end_slot - first) * builder.plan.period_ps * _PS)
        s.block, s.block_progress = builder.block, builder.progress
        s.clock_residual_ps = receiver.residual_ps
        self.on_batch(report)

    def _see_light(self, counters: FrameCounters) -> None:
        """Before anything is kept out for its phase: that, too, is light."""
        if counters.live_slots > 0:
            s = self.status
            s.counted += 1
            s.counted_slots = counters.live_slots
            s.clicks_per_slot = sum(counters.in_gate) / counters.live_slots

    async def _next_tags(self, builder: BlockBuilder, feed: TagFeed) -> Reading:
        """Back-pressure: while enough blocks are in flight no tags are taken, and the feed drops what does not fit."""
        while True:
            while not self._sift_inbox.empty():
                self._between(builder, *self._sift_inbox.get_nowait())
            self._account_dropped(feed)
            if self.status.blocks_in_flight < self.settings.blocks_in_flight:
                reading = feed.pop()
                if reading is not None:
                    return reading
            self._wake.clear()
            await self._wake.wait()

    def _account_dropped(self, feed: TagFeed) -> None:
        if feed.dropped:
            if self.status.blocks_in_flight >= self.settings.blocks_in_flight:
                why = f"{self.status.blocks_in_flight} blocks wait to be distilled"
            else:
                why = "sifting is slower than the clicks come"
            self._event("tags.dropped", batches=feed.dropped, why=why)
            self.status.batches_dropped += feed.dropped
            feed.dropped = 0

    def _between(self, builder: BlockBuilder, message: Message, data: bytes) -> None:
        """What Alice may say at any time of a run. Raises RunEnded or NewPlan."""
        if isinstance(message, Stop):
            raise RunEnded(message.why)
        if isinstance(message, Plan):
            raise NewPlan(message, data)
        if isinstance(message, Intensities) and message.run == builder.plan.run:
            builder.set_intensities(message.block, message.mu, data)

    async def _exchange(self, builder: BlockBuilder, batch: FrameBatch) -> tuple[Transcript, Sifted, BatchReport]:
        """DETECT and BASIS of one batch."""
        said, run = Transcript(), builder.plan.run
        data = await self.desk.kernels.encode_detect(batch.first_slot, batch.end_slot, batch.slots, batch.basis)
        detect = protocol.encode(Detect(run, data))
        said.add(Direction.BOB, detect)
        await self.session.send(detect)
        while True:
            try:
                async with asyncio.timeout(_BATCH_PATIENCE_S):
                    message, raw = await self._sift_inbox.get()
            except TimeoutError:
                raise ValueError(f"no BASIS from the far module for {_BATCH_PATIENCE_S:.0f} s") from None
            if isinstance(message, Basis) and message.run == run:
                break
            self._between(builder, message, raw)
        said.add(Direction.ALICE, raw)
        sifted, report = sift_bob(batch, decode_basis(message.data, batch.basis))
        return said, sifted, report

    async def _check_frame(self, builder: BlockBuilder, lost: str | None) -> None:
        if lost is not None:
            await self._resync(builder, lost)

    async def _resync(self, builder: BlockBuilder, why: str) -> None:
        """The frame is lost: what was sifted since is worthless, and the open block goes with it on both sides."""
        self._event("frame.lost", run=builder.plan.run, why=why)
        await self.session.send(NotSynced(builder.plan.run, why))
        raise RunEnded(why)
