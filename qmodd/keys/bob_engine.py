"""Bob's key engine: finds the frames, turns clicks into detections, keeps the clock, asks for calibration light."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from drivers.errors import Refused
from drivers.roles import LightMode, TagSource
from qmodd.channel import ChannelDown, MessageChannel
from qmodd.keys import protocol
from qmodd.keys.accounting import RunAccount
from qmodd.keys.authentication import Direction, SessionBroken, Transcript
from qmodd.keys.blocks import BlockBuilder, RawBlock
from qmodd.keys.bob_distil import BobDistiller
from qmodd.keys.conversation import Desk
from qmodd.keys.engine_common import RUN_FAULTS, Engine, RunEnded, block_id, honour_cancellation
from qmodd.keys.fields import MAX_TEXT, ProtocolError
from qmodd.keys.frames import FrameCounters
from qmodd.keys.pilot import PilotCounts
from qmodd.keys.plans import why_impossible, why_no_intensities
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
from qmodd.keys.settings import EngineSettings, LengthPolicy, OnBatch, Phase
from qmodd.keys.tracking import frame_lost, slots_shifted

_PS = 1e-12
_BATCH_PATIENCE_S = 30.0
# Batches that may be under way at once, so that the channel's round trip costs nothing.
AHEAD = 4


class NewPlan(Exception):
    """Alice has begun another run."""

    def __init__(self, plan: Plan, data: bytes) -> None:
        super().__init__("another run begins")
        self.plan, self.data = plan, data


@dataclass(frozen=True)
class Announced:
    """A batch that Alice was told of and has not answered yet; times in s of the module's clock."""

    first_slot: int
    end_slot: int
    detect: bytes
    read_at: float
    said_at: float
    residual_ps: float


class BobEngine(Engine):
    """During a run the engine alone reads the tagger; between runs it leaves it to others."""

    ME = Direction.BOB

    def __init__(
        self, settings: EngineSettings, channel: MessageChannel, desk: Desk, on_batch: OnBatch, tags: TagSource
    ) -> None:
        # Tags, or room for what becomes of them.
        self._tags_wake = asyncio.Event()
        super().__init__(settings, channel, desk, on_batch)
        self._tags = tags
        self._distiller = BobDistiller(desk, self.session.send, self._mail, self._line)
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
        self._distiller = BobDistiller(self.desk, self.session.send, self._mail, self._line)
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

    def _stir(self) -> None:
        super()._stir()
        self._tags_wake.set()

    async def _try_run(self, plan: Plan, data: bytes) -> None:
        self.status.run = plan.run
        try:
            await self._one_run(plan, data)
        except RunEnded as e:
            self._ended(plan, str(e))
        except RUN_FAULTS as e:
            # A tagger that could not be left as it was must not turn a stop into the mere end of a run.
            honour_cancellation()
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
            synced = protocol.encode(Synced(plan.run, receiver.next_slot, self.module_serial))
            await self.session.send(synced)
            self._phase(Phase.KEYING, "synchronised")
            builder = BlockBuilder(
                plan,
                data,
                began=self.desk.clock.monotonic(),
                synced_bytes=synced,
                bob_module=self.module_serial,
            )
            await self._sift(builder, receiver)
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
        if plan.agreed and s.length is LengthPolicy.VARIABLE:
            raise ValueError("the modules' settings differ: length is fixed at Alice and variable at Bob")
        if (impossible := why_impossible(plan)) is not None:
            raise ValueError(impossible)

    async def _sift(self, builder: BlockBuilder, receiver: Receiver) -> None:
        """Tags are announced while Alice's answers to earlier ones are worked in."""
        feed = self._feed()
        announced: deque[Announced] = deque()
        feeding = self._group.create_task(feed.run(), name="tags")
        announcing = self._group.create_task(self._announcing(builder, receiver, feed, announced), name="announce")
        announcing.add_done_callback(lambda _: self._wake.set())
        try:
            await self._answering(builder, announced, announcing)
        finally:
            feeding.cancel()
            announcing.cancel()
            # Nothing more is to be asked of the frame builder when the next run opens another one.
            await asyncio.wait([announcing])

    async def _announcing(
        self, builder: BlockBuilder, receiver: Receiver, feed: TagFeed, announced: deque[Announced]
    ) -> Exception:
        """Until it fails; what ended it is raised by the task that answers."""
        try:
            while True:
                self._account_dropped(feed)
                reading = feed.pop() if self._may_announce(announced) else None
                if reading is not None:
                    await self._announce(builder, receiver, reading, announced)
                    continue
                self._tags_wake.clear()
                await self._tags_wake.wait()
        except Exception as e:
            return e

    async def _answering(
        self, builder: BlockBuilder, announced: deque[Announced], announcing: asyncio.Task[Exception]
    ) -> None:
        account = RunAccount()
        while True:
            await self._messages(builder, announced, account)
            if announcing.done():
                raise announcing.result()
            if self._sift_inbox.empty():
                await self._wait(announced)

    def _feed(self) -> TagFeed:
        s = self.settings
        return TagFeed(self._tags, self.desk.clock, s.batch_s, s.queue_batches, self._tags_wake.set)

    def _may_announce(self, announced: deque[Announced]) -> bool:
        """Back-pressure: while enough blocks are in flight, or Alice owes enough answers, no tags are taken, and the
        feed drops what does not fit."""
        return self.status.blocks_in_flight < self.settings.blocks_in_flight and len(announced) < AHEAD

    async def _wait(self, announced: deque[Announced]) -> None:
        """For a message, or the end of announcing."""
        self._wake.clear()
        patience = _BATCH_PATIENCE_S
        if announced:
            patience -= self.desk.clock.monotonic() - announced[0].said_at
        try:
            async with asyncio.timeout(max(0.0, patience) if announced else None):
                await self._wake.wait()
        except TimeoutError:
            raise ValueError(f"no BASIS from the far module for {_BATCH_PATIENCE_S:.0f} s") from None

    async def _messages(self, builder: BlockBuilder, announced: deque[Announced], account: RunAccount) -> None:
        while not self._sift_inbox.empty():
            message, data = self._sift_inbox.get_nowait()
            if isinstance(message, Basis) and message.run == builder.plan.run:
                if not announced:
                    raise ValueError("a BASIS that answers nothing")
                await self._answered(builder, announced.popleft(), message, data, account)
                self._tags_wake.set()
            else:
                self._between(builder, message, data)

    async def _announce(
        self, builder: BlockBuilder, receiver: Receiver, reading: Reading, announced: deque[Announced]
    ) -> None:
        """Tags to DETECT. Alice's answers to earlier batches may still be under way."""
        first = receiver.next_slot
        seen = await receiver.accept(reading, self.flags)
        if seen.end_slot == first:
            return
        self._see_light(seen.counters, seen.end_slot - first)
        await self._check_frame(builder, frame_lost(seen.counters))
        keep = seen.pilot is None or not self.on_pilot(seen.pilot, reading.read_at)
        data = seen.detect or await self.desk.kernels.announce(first, keep)
        detect = protocol.encode(Detect(builder.plan.run, data))
        announced.append(
            Announced(first, seen.end_slot, detect, reading.read_at, self.desk.clock.monotonic(), receiver.residual_ps)
        )
        await self.session.send(detect)

    async def _answered(
        self, builder: BlockBuilder, batch: Announced, message: Basis, data: bytes, account: RunAccount
    ) -> None:
        """BASIS to TALLY of the oldest batch that Alice has not answered yet."""
        plan = builder.plan
        report, gathered = await self.desk.kernels.sift(batch.first_slot, message.data, plan.n_z)
        await self._check_frame(builder, slots_shifted(report, plan.mu, plan.p_mu))
        wrong = account.batch(sum(report.n_z), plan.n_z * len(gathered.closed), gathered.open_n_z)
        if wrong is not None:
            self._event("run.disagrees", run=plan.run, why=wrong)
            raise ValueError(wrong)
        tally = protocol.encode(Tally(plan.run, report.to_bytes()))
        said = Transcript()
        for speaker, words in ((Direction.BOB, batch.detect), (Direction.ALICE, data), (Direction.BOB, tally)):
            said.add(speaker, words)
        # The blocks must be closed here before Alice, who hears TALLY, opens one of them.
        now = self.desk.clock.monotonic()
        self._queue_closed(builder.gathered(said, gathered.closed, gathered.open_n_z, now))
        await self.session.send(tally)
        why = self._why_no_keys()
        if why is not None:
            raise ValueError(why)
        s = self.status
        self._sifted(sum(report.n_z), (batch.end_slot - batch.first_slot) * plan.period_ps * _PS)
        s.block, s.block_progress = builder.block, builder.progress
        s.clock_residual_ps = batch.residual_ps
        self.batch_end_s = batch.read_at
        self.on_batch(report)

    def _see_light(self, counters: FrameCounters, slots: int) -> None:
        """Before anything is kept out for its phase: that, too, is light."""
        s = self.status
        s.light, s.light_slots = counters, slots
        if counters.live_slots > 0:
            s.counted += 1
            s.counted_slots = counters.live_slots
            s.clicks_per_slot = sum(counters.in_gate) / counters.live_slots

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
            if (impossible := why_no_intensities(message.mu)) is not None:
                raise ValueError(impossible)
            builder.set_intensities(message.block, message.mu, data)

    async def _check_frame(self, builder: BlockBuilder, lost: str | None) -> None:
        if lost is not None:
            await self._resync(builder, lost)

    async def _resync(self, builder: BlockBuilder, why: str) -> None:
        """The frame is lost: what was sifted since is worthless, and the open block goes with it on both sides."""
        self._event("frame.lost", run=builder.plan.run, why=why)
        await self.session.send(NotSynced(builder.plan.run, why))
        raise RunEnded(why)
