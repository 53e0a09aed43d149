"""Alice's side of distilling one block (reference keys, "The service channel, message by message", 2 to 7)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from drivers.errors import DriverError
from qmodd.keys.amplification import seed_bytes
from qmodd.keys.authentication import BadTag, BlockAuthentication, Direction, verdict_token
from qmodd.keys.bench import NotOpen
from qmodd.keys.blocks import RawBlock, counts_alice
from qmodd.keys.conversation import (
    BlockAborted,
    Conversation,
    Desk,
    HelpLedger,
    Outcome,
    Send,
    Share,
    check_account,
    check_hope,
    decide,
    held,
    make_record,
    with_m_z,
)
from qmodd.keys.counts import BlockCounts
from qmodd.keys.estimation import KeyLength
from qmodd.keys.kernels import WorkerDied
from qmodd.keys.material import Held
from qmodd.keys.pool import PoolRefused
from qmodd.keys.protocol import (
    BlockClose,
    Commit,
    Committed,
    FrameHelp,
    HelpWanted,
    Prepare,
    Prepared,
    Result,
    Seed,
    Syndrome,
    Verify,
    XErrors,
)
from qmodd.keys.reconciliation import ExpectedQber, ModePolicy, Plan
from qmodd.keys.records import BlockRecord, SecretBits, wiped_on_error
from qmodd.keys.stations import Line, Mail, Station, Visit
from qmodd.keys.store import StoreRefused
from qmodd.keys.verification import KEY_BYTES

# What can go wrong with one block and leaves the engine whole.
BLOCK_FAULTS = (BlockAborted, BadTag, PoolRefused, StoreRefused, WorkerDied, NotOpen, DriverError, ValueError)
_LEAST_QBER, _MOST_QBER = 0.001, 0.1
# Of QBER_X, for the first block: interference adds errors that arrival times do not have. Help covers a wrong guess.
_FIRST_SHARE = 0.7


def _within(qber: float) -> float:
    return min(_MOST_QBER, max(_LEAST_QBER, qber))


@dataclass
class AliceDistiller:
    """Distils blocks in the order in which they closed, several at a time along the line of stations."""

    desk: Desk
    send: Send
    mail: Mail
    line: Line
    # QBER_Z of the blocks before chooses the code of the next; the first one goes by its X errors.
    qber: float | None = None
    expected: ExpectedQber = field(default_factory=ExpectedQber)
    policy: ModePolicy = field(default_factory=ModePolicy)
    # What the counts of the last block gave, for the thresholds of a fixed length.
    observed: KeyLength | None = None
    # Run, block, and when it began, of the last one by which the rate of sifting was measured.
    _sifted: tuple[int, int, float] = (-1, 0, 0.0)
    _answered: dict[UUID, asyncio.Event] = field(default_factory=dict)

    async def distil(self, raw: RawBlock) -> BlockRecord:
        """Raises BlockAborted: no key on either side. Any other end leaves the block to the journals."""
        talk = Conversation(raw, Direction.ALICE, self.send, self.mail.box(raw.run, raw.block))
        async with self.line.visit() as visit:
            try:
                record = await self._distil(visit, talk, raw)
            except BLOCK_FAULTS as e:
                if not (isinstance(e, BlockAborted) and e.by_peer):
                    await talk.abort(str(e))
                raise e if isinstance(e, BlockAborted) else BlockAborted(str(e)) from e
            await self._finish(talk, record)
        return record

    async def _distil(self, visit: Visit, talk: Conversation, raw: RawBlock) -> BlockRecord:
        await visit.enter(Station.OPEN)
        block = await held(self.desk, raw)
        try:
            return await self._distil_held(visit, talk, raw, block)
        finally:
            self.desk.kernels.release(block)

    async def _distil_held(self, visit: Visit, talk: Conversation, raw: RawBlock, block: Held) -> BlockRecord:
        round_ = await self._claim(talk)
        counts = await self._open(talk, raw, round_)
        await visit.enter(Station.CORRECT)
        ledger = await self._correct(talk, raw, counts, block)
        if self.qber is not None:
            # The first block is verified before the next one's code is chosen, by what was found in it.
            await visit.enter(Station.VERIFY)
        counts, share = await self._verify(talk, raw, counts, ledger, block)
        await talk.send_tag(0)
        await visit.enter(Station.AMPLIFY)
        seed = self.desk.randomness.bytes(seed_bytes(counts.total_z, share.used))
        await talk.send(Seed(raw.run, raw.block, share.used, seed))
        secret = SecretBits(await self.desk.kernels.amplify(block, seed, share.used), share.used)
        with wiped_on_error(secret):
            await check_account(self.desk, raw, block, counts, share, ledger.leak_bits, decoder=False)
            await visit.enter(Station.FINISH)
            now = self.desk.clock.utc()
            later = now + timedelta(seconds=self.desk.settings.lifetime_s)
            record = make_record(
                self.desk,
                raw,
                "alice",
                Outcome(
                    uuid=str(self.desk.randomness.uuid()),
                    round=round_,
                    counts=counts,
                    share=share,
                    leak_bits=ledger.leak_bits,
                    frames=ledger.frames,
                    frames_helped=ledger.frames_helped,
                    eps_auth=talk.eps_auth(),
                    seed=seed,
                    station_seconds=dict(visit.seconds),
                    allocations=len(share.allocation.shares),
                    created=now.timestamp(),
                    not_after=later.timestamp(),
                ),
            )
            await self.desk.blocking(self.desk.journal.prepare, record, secret)
            await talk.send(
                Prepare(
                    *(raw.run, raw.block, UUID(record.uuid).bytes, record.created, record.not_after),
                    *(record.allocations, share.allocation.shares, share.allocation.sizes),
                )
            )
            await talk.send_tag(1)
            return record

    async def _claim(self, talk: Conversation) -> int:
        """A round of the pool, durably used up before its first tag leaves."""
        pool = self.desk.journal.pool
        round_ = pool.next_round
        await self.desk.blocking(pool.claim, round_)
        talk.authentication = BlockAuthentication(pool, self.desk.settings.link_id, round_, talk.transcript)
        return round_

    async def _open(self, talk: Conversation, raw: RawBlock, round_: int) -> BlockCounts:
        counts = raw.counts
        await talk.send(BlockClose(raw.run, raw.block, round_, counts.n_z, counts.n_x))
        errors = await talk.expect(XErrors)
        counts = counts_alice(raw, errors.m_x)
        check_hope(self.desk, raw, counts)
        return counts

    async def _correct(self, talk: Conversation, raw: RawBlock, counts: BlockCounts, block: Held) -> HelpLedger:
        qber = self.qber or _within(_FIRST_SHARE * counts.qber_x)
        self._time_sifting(raw)
        plan = Plan.make(counts.total_z, qber, self.policy.choose(self.qber is not None))
        ledger, data = HelpLedger(plan), await self.desk.kernels.syndromes(block, plan)
        begun = self.desk.clock.monotonic()
        await talk.send(Syndrome(raw.run, raw.block, qber, plan.mode, plan.code.digest, data))
        while True:
            message = await talk.expect(HelpWanted)
            if len(message.frames) != len(message.rounds):
                raise BlockAborted("malformed request for help")
            wanted = tuple(zip(message.frames, message.rounds, strict=True))
            if not wanted:
                self.policy.saw_corrected(plan, self.desk.clock.monotonic() - begun)
                return ledger
            ledger.add(wanted)
            pieces = await self.desk.kernels.disclose(block, plan, wanted)
            await talk.send(FrameHelp(raw.run, raw.block, pieces))

    def _time_sifting(self, raw: RawBlock) -> None:
        """By when blocks began; one batch may have begun several."""
        run, block, began = self._sifted
        if run == raw.run and raw.began > began:
            self.policy.saw_sifted((raw.block - block) * raw.counts.total_z, raw.began - began)
        if run != raw.run or raw.began > began:
            self._sifted = (raw.run, raw.block, raw.began)

    async def _verify(
        self, talk: Conversation, raw: RawBlock, counts: BlockCounts, ledger: HelpLedger, block: Held
    ) -> tuple[BlockCounts, Share]:
        key = self.desk.randomness.bytes(KEY_BYTES)
        await talk.send(Verify(raw.run, raw.block, key, await self.desk.kernels.verification_tag(key, block)))
        result = await talk.expect(Result)
        await talk.check_tag(0)
        if not result.ok:
            raise BlockAborted("verification failed: the corrected blocks differ")
        counts = with_m_z(counts, result.m_z)
        self.expected.learn(counts.qber_z, counts.total_z)
        # Some frames are meant to need help; if most of the short ones do, errors are on the rise.
        rising = 2 * ledger.frames_helped > ledger.frames and ledger.short
        self.qber = _within((1.05 if rising else 1.0) * (self.expected.value or 0.0))
        share = decide(self.desk, raw, counts, ledger.leak_bits, self._observe)
        if (result.leak, result.length) != (ledger.leak_bits, share.length.length_bits):
            raise BlockAborted(
                f"the sides disagree: leak {ledger.leak_bits} and {result.leak} bits, length "
                f"{share.length.length_bits} and {result.length} bits"
            )
        return counts, share

    def _observe(self, length: KeyLength) -> None:
        self.observed = length

    async def _finish(self, talk: Conversation, record: BlockRecord) -> None:
        """From here on the block is prepared on Alice's side, so its end is a verdict with a token."""
        uuid, journal = UUID(record.uuid), self.desk.journal
        try:
            prepared = await talk.expect(Prepared)
            if prepared.uuid != uuid.bytes:
                raise BlockAborted("another block was prepared")
            await talk.check_tag(1)
        except (BlockAborted, BadTag) as e:
            await self.desk.blocking(journal.abort, uuid)
            await self.send(Commit(uuid.bytes, False, verdict_token(journal.pool, record.round, False)))
            raise e if isinstance(e, BlockAborted) else BlockAborted(str(e)) from e
        await self.desk.blocking(journal.commit, uuid)
        self.desk.on_block(record)
        answered = self._answered[uuid] = asyncio.Event()
        await self.send(Commit(uuid.bytes, True, verdict_token(journal.pool, record.round, True)))
        await answered.wait()

    async def on_committed(self, message: Committed) -> None:
        """Bob's answer to a verdict, of this session or an earlier one."""
        uuid, journal = UUID(bytes=message.uuid), self.desk.journal
        if journal.committed(uuid):
            if not message.verdict:
                await self.desk.blocking(journal.revoke_block, uuid)
                self.desk.on_event("block.lost_by_peer", {"block": str(uuid)})
            await self.desk.blocking(journal.peer_done, uuid)
        event = self._answered.pop(uuid, None)
        if event is not None:
            event.set()

    async def settle(self, in_doubt: tuple[tuple[bytes, int], ...]) -> None:
        """At the start of a session: what Alice had not committed is aborted; every doubt of Bob's gets its verdict."""
        journal = self.desk.journal
        owed = {d.uuid.bytes: d.round for d in journal.verdicts_owed()}
        for raw_uuid, round_ in {**dict(in_doubt), **owed}.items():
            uuid = UUID(bytes=raw_uuid)
            try:
                verdict = journal.verdict_on(uuid, round_)
                token = verdict_token(journal.pool, round_, verdict)
            except (ValueError, PoolRefused) as e:
                self.desk.on_event("block.unknown", {"block": str(uuid), "why": str(e)})
                continue
            await self.send(Commit(raw_uuid, verdict, token))
            self.desk.on_event("block.settled", {"block": str(uuid), "committed": verdict})
