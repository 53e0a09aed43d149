"""Alice's side of distilling one block (reference keys, "The service channel, message by message", 2 to 7)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import numpy as np
import numpy.typing as npt

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
    Inbox,
    Outcome,
    Send,
    Share,
    check_hope,
    decide,
    make_record,
    with_m_z,
)
from qmodd.keys.counts import BlockCounts
from qmodd.keys.kernels import WorkerDied
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
from qmodd.keys.reconciliation import Plan
from qmodd.keys.records import BlockRecord, SecretBits
from qmodd.keys.store import StoreRefused
from qmodd.keys.verification import KEY_BYTES

# What can go wrong with one block and leaves the engine whole.
BLOCK_FAULTS = (BlockAborted, BadTag, PoolRefused, StoreRefused, WorkerDied, NotOpen, DriverError, ValueError)
_LEAST_QBER, _MOST_QBER = 0.002, 0.05
# Of QBER_X, for the first block: interference adds errors that arrival times do not have. Help covers a wrong guess.
_FIRST_SHARE = 0.7


def _within(qber: float) -> float:
    return min(_MOST_QBER, max(_LEAST_QBER, qber))


@dataclass
class AliceDistiller:
    """Distils blocks one after the other, in the order in which they closed."""

    desk: Desk
    send: Send
    inbox: Inbox
    # QBER_Z of the last block chooses the code of the next; the first one goes by its X errors.
    qber: float | None = None
    _answered: dict[UUID, asyncio.Event] = field(default_factory=dict)

    async def distil(self, raw: RawBlock) -> BlockRecord:
        """Raises BlockAborted: no key on either side. Any other end leaves the block to the journals."""
        talk = Conversation(raw, Direction.ALICE, self.send, self.inbox)
        try:
            record = await self._distil(talk, raw)
        except BLOCK_FAULTS as e:
            if not (isinstance(e, BlockAborted) and e.by_peer):
                await talk.abort(str(e))
            raise e if isinstance(e, BlockAborted) else BlockAborted(str(e)) from e
        await self._finish(talk, record)
        return record

    async def _distil(self, talk: Conversation, raw: RawBlock) -> BlockRecord:
        round_ = await self._claim(talk)
        counts = await self._open(talk, raw, round_)
        bits = raw.sifted.z_bits
        ledger = await self._correct(talk, raw, counts, bits)
        counts, share = await self._verify(talk, raw, counts, ledger, bits)
        await talk.send_tag(0)
        seed = self.desk.randomness.bytes(seed_bytes(len(bits), share.used))
        await talk.send(Seed(raw.run, raw.block, share.used, seed))
        secret = SecretBits(await self.desk.kernels.amplify(bits, seed, share.used), share.used)
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
                allocations=len(self.desk.journal.store.recipients),
                created=now.timestamp(),
                not_after=later.timestamp(),
            ),
        )
        await self.desk.blocking(self.desk.journal.prepare, record, secret)
        await talk.send(
            Prepare(raw.run, raw.block, UUID(record.uuid).bytes, record.created, record.not_after, record.allocations)
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

    async def _correct(
        self, talk: Conversation, raw: RawBlock, counts: BlockCounts, bits: npt.NDArray[np.uint8]
    ) -> HelpLedger:
        qber = self.qber or _within(_FIRST_SHARE * counts.qber_x)
        ledger = HelpLedger(Plan.make(len(bits), qber))
        await talk.send(Syndrome(raw.run, raw.block, qber, await self.desk.kernels.syndromes(bits, qber)))
        while True:
            message = await talk.expect(HelpWanted)
            if len(message.frames) != len(message.rounds):
                raise BlockAborted("malformed request for help")
            wanted = tuple(zip(message.frames, message.rounds, strict=True))
            if not wanted:
                return ledger
            ledger.add(wanted)
            pieces = await self.desk.kernels.disclose(bits, qber, wanted)
            await talk.send(FrameHelp(raw.run, raw.block, pieces))

    async def _verify(
        self, talk: Conversation, raw: RawBlock, counts: BlockCounts, ledger: HelpLedger, bits: npt.NDArray[np.uint8]
    ) -> tuple[BlockCounts, Share]:
        key = self.desk.randomness.bytes(KEY_BYTES)
        await talk.send(Verify(raw.run, raw.block, key, await self.desk.kernels.verification_tag(key, bits)))
        result = await talk.expect(Result)
        await talk.check_tag(0)
        if not result.ok:
            raise BlockAborted("verification failed: the corrected blocks differ")
        counts = with_m_z(counts, result.m_z)
        self.qber = _within((1.1 if ledger.frames_helped else 1.0) * counts.qber_z)
        share = decide(self.desk, raw, counts, ledger.leak_bits)
        if (result.leak, result.length) != (ledger.leak_bits, share.length.length_bits):
            raise BlockAborted(
                f"the sides disagree: leak {ledger.leak_bits} and {result.leak} bits, length "
                f"{share.length.length_bits} and {result.length} bits"
            )
        return counts, share

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
            verdict = journal.committed(UUID(bytes=raw_uuid))
            await self.send(Commit(raw_uuid, verdict, verdict_token(journal.pool, round_, verdict)))
            self.desk.on_event("block.settled", {"block": str(UUID(bytes=raw_uuid)), "committed": verdict})
