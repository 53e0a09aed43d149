"""Alice's key engine: leads the runs, answers for her symbols, serves calibration light."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drivers.errors import Refused
from drivers.roles import LightMode, SymbolSource
from qmodd.channel import MessageChannel
from qmodd.keys import protocol
from qmodd.keys.accounting import RunAccount
from qmodd.keys.alice_distil import AliceDistiller
from qmodd.keys.authentication import Direction, Transcript
from qmodd.keys.blocks import BlockBuilder, RawBlock, inside
from qmodd.keys.conversation import Desk
from qmodd.keys.counts import BatchReport
from qmodd.keys.engine_common import RUN_FAULTS, Engine, RunEnded, block_id
from qmodd.keys.fields import MAX_TEXT, ProtocolError
from qmodd.keys.patterning import EVERY, Neighbours, PatternTally, neighbours, slots_before
from qmodd.keys.pilot import is_pilot
from qmodd.keys.planning import make_plan, thresholds
from qmodd.keys.plans import agreement
from qmodd.keys.protocol import (
    Basis,
    Committed,
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
from qmodd.keys.reconciliation import ModePolicy
from qmodd.keys.records import BlockRecord
from qmodd.keys.settings import EngineSettings, LengthPolicy, LightServer, OnBatch, Phase, PlanProvider
from qmodd.keys.sifting import INVALID, Sifted, count, encode_basis, match, sift_alice
from qmodd.keys.sifting import Detect as Detections

_PS = 1e-12
_SYNC_PATIENCE_S = 10.0
_BATCH_PATIENCE_S = 30.0
# Batches answered and not tallied; Bob keeps fewer.
MOST_AHEAD = 8


@dataclass(frozen=True)
class Answered:
    """A batch that Bob has his answer to and has not tallied yet."""

    detect: Detections
    sifted: Sifted
    said: Transcript
    beside: Neighbours | None


# Requests that may wait while one is served; a receiver asks for one at a time.
MOST_LIGHTS = 16


class AliceEngine(Engine):
    """`light_server` fulfils Bob's requests for light or raises Refused; `plan_provider` says what is fixed before a
    block or raises Refused. Once a run begins the engine owns the source's mode until the run ends with OFF.
    `on_patterning` is given sums over what went before detected slots, of one batch in `pattern_every`."""

    ME = Direction.ALICE

    def __init__(
        self,
        settings: EngineSettings,
        channel: MessageChannel,
        desk: Desk,
        on_batch: OnBatch,
        source: SymbolSource,
        light_server: LightServer,
        plan_provider: PlanProvider,
        on_patterning: Callable[[PatternTally], None] = lambda _: None,
    ) -> None:
        super().__init__(settings, channel, desk, on_batch)
        self._source = source
        self._light_server = light_server
        self._plan_provider = plan_provider
        self.on_patterning = on_patterning
        self.pattern_every = EVERY
        self._unlooked = 0
        self._distiller = AliceDistiller(
            desk, self.session.send, self._mail, self._line, policy=ModePolicy(settings.reconciliation)
        )
        self._light = asyncio.Lock()
        self._lights_waiting = 0
        self._run = 0
        self._keying = False
        self._anchor = (0, 0.0)
        self._pilot_every = 0

    def follow(self, settings: EngineSettings) -> None:
        super().follow(settings)
        self._distiller.policy.setting = settings.reconciliation

    async def _tasks(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        old = self._distiller
        self._distiller = AliceDistiller(
            self.desk, self.session.send, self._mail, self._line, old.qber, old.expected, old.policy, old.observed
        )
        group.create_task(self._keying_loop(), name="keying")

    async def _dispatch(self, message: Message, data: bytes) -> None:
        match message:
            case Synced() | NotSynced() | Detect() | Tally() | Stop():
                self._sift_inbox.put_nowait((message, data))
            case Light():
                self._take_light(message)
            case Committed():
                block_id(message.uuid)
                await self._distiller.on_committed(message)
            case _:
                raise ProtocolError(f"{type(message).__name__} is not for Alice")

    async def _on_welcome(self, welcome: Welcome) -> None:
        for uuid, _ in welcome.in_doubt:
            block_id(uuid)
        if self._pool_fault is None:
            await self._distiller.settle(welcome.in_doubt)
        if not welcome.in_doubt:
            self._compare_pools()
        self._settled = True

    async def _distil(self, raw: RawBlock) -> BlockRecord:
        return await self._distiller.distil(raw)

    # --- light ---

    def _take_light(self, request: Light) -> None:
        if self._lights_waiting >= MOST_LIGHTS:
            raise ProtocolError("the far end asks for light faster than it is given")
        self._lights_waiting += 1
        task = self._group.create_task(self._serve_light(request), name="light")
        task.add_done_callback(self._light_served)

    def _light_served(self, _task: asyncio.Task[None]) -> None:
        self._lights_waiting -= 1

    async def _serve_light(self, request: Light) -> None:
        async with self._light:
            try:
                await self._give_light(request)
            except RUN_FAULTS as e:
                await self.session.send(LightNo(request.number, str(e)[:MAX_TEXT]))
            else:
                await self.session.send(LightOk(request.number))

    async def _give_light(self, request: Light) -> None:
        if self._keying:
            raise Refused("keys are being made: calibration light is never in a slot that can become key")
        if request.mode not in (LightMode.OFF, LightMode.CW, LightMode.NULL, LightMode.FIX, LightMode.SYNC):
            raise Refused(f"light mode {request.mode} is not served")
        if request.state > 3 or request.intensity > 1 or not 0.0 <= request.scale <= 1e6:
            raise Refused("no such state, intensity or photon scale")
        await self._light_server(LightMode(request.mode), request.state, request.intensity, request.scale)

    # --- runs ---

    async def _keying_loop(self) -> None:
        while True:
            why = self._why_not_yet()
            while why is not None:
                self._phase(Phase.WAITING if self._wanted else Phase.IDLE, why)
                self._changed.clear()
                await self._changed.wait()
                why = self._why_not_yet()
            await self._try_run()
            if self._wanted:
                await asyncio.sleep(self.settings.retry_s)

    def _why_not_yet(self) -> str | None:
        mine = self._why_no_keys()
        if mine is not None:
            return mine
        if self._welcome is None or not self.status.peer_ready:
            return f"the far module is not ready: {self.status.peer_why or 'no word yet'}"
        return None

    async def _try_run(self) -> None:
        self._run += 1
        self.status.run = self._run
        self._keying = True
        try:
            async with self._light:  # an answer to a request for light must not come in between
                plan = await self._begin()
            await self._sift(plan)
        except RunEnded as e:
            await self._end(str(e))
        except RUN_FAULTS as e:
            await self._try_send(Stop(str(e)[:MAX_TEXT]))
            await self._end(str(e))
        finally:
            self._keying = False

    async def _end(self, why: str) -> None:
        self._event("run.ended", run=self._run, why=why)
        self._phase(Phase.WAITING if self._wanted else Phase.IDLE, why)
        self.status.block_progress = 0.0
        try:
            await self._source.set_mode(LightMode.OFF)
        except RUN_FAULTS as e:
            self._event("source.fault", why=str(e))

    async def _begin(self) -> Plan:
        """Program SYNC and KEY, and say so."""
        s, source = self.settings, self._source
        facts = await self._plan_provider()
        while not self._sift_inbox.empty():
            self._sift_inbox.get_nowait()
        source_run, slot = await source.now()
        if source_run == 0:
            await source.run()
            source_run, slot = await source.now()
        self._anchor = (slot, self.desk.clock.monotonic())
        per_s = 1.0 / (source.period_ps * _PS)
        sync = slot + round(s.lead_s * per_s)
        key = sync + round(s.sync_s * per_s)
        await source.set_mode(LightMode.SYNC, at_slot=sync)
        await source.set_mode(LightMode.KEY, at_slot=key)
        pilot = await source.pilot()
        self._pilot_every = pilot.every if pilot else 0
        plan = make_plan(
            *(s, facts, self._run, source_run, sync, key, slot, source.period_ps, source.bin_ps, self._pilot_every),
            self.module_serial,
            thresholds(s, self._distiller.observed),
        )
        self._facts = facts
        self._phase(Phase.SYNCING, "the public string is sent")
        await self.session.send(plan)
        return plan

    async def _next(self, patience_s: float) -> tuple[Message, bytes]:
        """The next message of this run. Raises RunEnded on a stop of either side, lost synchronisation, or silence."""
        while True:
            try:
                async with asyncio.timeout(patience_s):
                    message, data = await self._sift_inbox.get()
            except TimeoutError:
                raise RunEnded(f"no answer from the far module for {patience_s:.0f} s") from None
            if isinstance(message, Stop):
                raise RunEnded(message.why)
            if getattr(message, "run", None) != self._run:
                continue
            if isinstance(message, NotSynced):
                raise RunEnded(message.why)
            return message, data

    async def _sift(self, plan: Plan) -> None:
        s = self.settings
        message, synced = await self._next(s.lead_s + s.sync_s + _SYNC_PATIENCE_S)
        if not isinstance(message, Synced) or message.first_slot < plan.key_slot:
            raise RunEnded("synchronised at slots that are not KEY")
        builder = BlockBuilder(
            plan,
            protocol.encode(plan),
            began=self.desk.clock.monotonic(),
            synced_bytes=synced,
            bob_module=message.module,
        )
        self._phase(Phase.KEYING, "synchronised")
        self._distiller.observed = None
        slot, answered, account = message.first_slot, deque[Answered](), RunAccount()
        while True:
            self._check_agreed(plan)
            told, data = await self._next(_BATCH_PATIENCE_S)
            if isinstance(told, Detect) and len(answered) < MOST_AHEAD:
                batch = await self._answer(slot, told, data)
                answered.append(batch)
                slot = batch.detect.end_slot
            elif isinstance(told, Tally) and answered:
                await self._tallied(builder, answered, told, data, account)
            else:
                raise RunEnded(f"{type(told).__name__} came where it was not due")

    def _check_agreed(self, plan: Plan) -> None:
        """Thresholds are fixed for a whole run. Raises RunEnded when a run under better ones should begin."""
        observed = self._distiller.observed
        if self.settings.length is LengthPolicy.VARIABLE or observed is None or not thresholds(self.settings, observed):
            return
        agreed = agreement(plan)
        if agreed is None:
            raise RunEnded("what a block pays for is known: a run with a fixed length begins")
        why = agreed.decide(observed).why_zero
        if why is not None:
            raise RunEnded(f"a run with another fixed length begins: {why}")

    async def _answer(self, slot: int, told: Detect, data: bytes) -> Answered:
        """DETECT to BASIS."""
        said = Transcript()
        said.add(Direction.BOB, data)
        detect = await self.desk.kernels.decode_detect(told.data)
        if detect.first_slot != slot:
            raise RunEnded(f"detections from slot {detect.first_slot}, due from {slot}")
        symbols = await self._symbols(detect)
        answer = match(detect.basis, symbols)
        basis = protocol.encode(Basis(self._run, encode_basis(answer)))
        said.add(Direction.ALICE, basis)
        await self.session.send(basis)
        beside = await self._neighbours(detect, symbols)
        await self._source.free(detect.end_slot)
        return Answered(detect, sift_alice(detect, answer), said, beside)

    async def _tallied(
        self, builder: BlockBuilder, answered: deque[Answered], told: Tally, data: bytes, account: RunAccount
    ) -> None:
        """TALLY of the oldest batch that Bob has not told of yet."""
        batch = answered.popleft()
        first, end = batch.detect.first_slot, batch.detect.end_slot
        batch.said.add(Direction.BOB, data)
        report = BatchReport.from_bytes(told.data)
        mine = count(batch.sifted)
        if (report.first_slot, report.end_slot, report.n_z, report.n_x) != (first, end, mine.n_z, mine.n_x):
            raise RunEnded("the sides count a batch differently")
        blocks = builder.add(batch.said, batch.sifted, self.desk.clock.monotonic())
        wrong = account.batch(mine.total_z, sum(b.counts.total_z for b in blocks), builder.n_z)
        if wrong is not None:
            self._event("run.disagrees", run=self._run, why=wrong)
            raise RunEnded(wrong)
        await self._closed_by(builder, blocks, sum(b.sifted.n_z for b in answered))
        self._sifted(mine.total_z, (end - first) * self._source.period_ps * _PS)
        self.status.block, self.status.block_progress = builder.block, builder.progress
        self.on_batch(report)
        if batch.beside is not None and report.live_slots:
            self.on_patterning(batch.beside.tally(report, (self._facts.p_mu[0], self._facts.p_mu[1])))

    async def _symbols(self, detect: Detections) -> npt.NDArray[np.uint8]:
        """Nibbles of Bob's slots; pilots and those of flagged intervals are not even asked for and match nothing."""
        anchor_slot, at = self._anchor
        per_s = 1.0 / (self._source.period_ps * _PS)
        wanted = ~inside(detect.slots, self.flags.ranges(anchor_slot, at, per_s))
        wanted &= ~is_pilot(detect.slots, self._pilot_every)
        nibbles = np.full(len(detect.slots), INVALID, np.uint8)
        if wanted.any():
            nibbles[wanted] = await self._source.read_symbols(detect.slots[wanted])
        self.flags.forget(at + (detect.end_slot - anchor_slot) / per_s - 5.0)
        return nibbles

    async def _neighbours(self, detect: Detections, symbols: npt.NDArray[np.uint8]) -> Neighbours | None:
        """Of one batch in `pattern_every`; None for the others. Bob has his answer by now and waits for nothing here.

        What is read stays in this method. A batch of which something is flagged waits for the next.
        """
        self._unlooked += 1
        if self._unlooked < self.pattern_every or (symbols & INVALID).any():
            return None
        chosen = slots_before(detect, self._pilot_every)
        if not len(chosen):
            return None
        self._unlooked = 0
        return neighbours(detect, symbols, chosen, await self._source.read_symbols(detect.slots[chosen] - 1))

    async def _closed_by(self, builder: BlockBuilder, blocks: list[RawBlock], under_way: int) -> None:
        """Queue what closed. Intensities are fixed here for the first block that cannot have begun on either side when
        Bob hears of it: `under_way` Z detections are answered already, and he hears of it before any other answer."""
        if not blocks:
            return
        self._queue_closed(blocks)
        why = self._why_no_keys()
        if why is not None:
            raise RunEnded(why)
        facts = await self._plan_provider()
        if (facts.p_mu, facts.p_x) != (self._facts.p_mu, self._facts.p_x):
            raise RunEnded("the probabilities of basis or intensity were changed")
        if facts.mu != self._facts.mu:
            self._facts = facts
            block = builder.block + 1 + (builder.n_z + under_way) // builder.plan.n_z
            message = protocol.encode(Intensities(self._run, block, facts.mu))
            builder.set_intensities(block, facts.mu, message)
            await self.session.send(message)
