"""Bob's side of distilling one block (reference keys, "The service channel, message by message", 2 to 7)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

from qmodd.keys.alice_distil import BLOCK_FAULTS
from qmodd.keys.allocation import difference
from qmodd.keys.amplification import seed_bytes
from qmodd.keys.authentication import BadTag, BlockAuthentication, Direction, check_token
from qmodd.keys.blocks import RawBlock
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
    pairs_of,
    with_m_z,
)
from qmodd.keys.counts import BlockCounts
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
from qmodd.keys.reconciliation import Mode, Plan
from qmodd.keys.records import BlockRecord, SecretBits, wiped_on_error
from qmodd.keys.stations import Line, Mail, Station, Visit
from qmodd.keys.verification import tags_equal


@dataclass
class BobDistiller:
    """Distils blocks in the order in which they closed, several at a time along the line of stations."""

    desk: Desk
    send: Send
    mail: Mail
    line: Line
    _verdicts: dict[UUID, asyncio.Future[bool]] = field(default_factory=dict)

    async def distil(self, raw: RawBlock) -> BlockRecord:
        """Raises BlockAborted: no key on either side. Any other end leaves the block to the journals."""
        talk = Conversation(raw, Direction.BOB, self.send, self.mail.box(raw.run, raw.block))
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
        round_, counts = await self._open(talk, raw)
        await visit.enter(Station.CORRECT)
        ledger, m_z = await self._correct(talk, raw, block)
        counts = with_m_z(counts, m_z)
        await visit.enter(Station.VERIFY)
        share = await self._verify(talk, raw, counts, ledger, block)
        await visit.enter(Station.AMPLIFY)
        seed = await talk.expect(Seed)
        if seed.length != share.used or len(seed.seed) != seed_bytes(counts.total_z, share.used):
            raise BlockAborted("the seed does not fit the block")
        secret = SecretBits(await self.desk.kernels.amplify(block, seed.seed, share.used), share.used)
        with wiped_on_error(secret):
            await check_account(self.desk, raw, block, counts, share, ledger.leak_bits, decoder=True)
            await visit.enter(Station.FINISH)
            return await self._prepare(visit, talk, raw, round_, counts, share, ledger, seed.seed, secret)

    async def _prepare(
        self,
        visit: Visit,
        talk: Conversation,
        raw: RawBlock,
        round_: int,
        counts: BlockCounts,
        share: Share,
        ledger: HelpLedger,
        seed: bytes,
        secret: SecretBits,
    ) -> BlockRecord:
        """Make the block durable under Alice's name for it."""
        eps_auth = talk.eps_auth()
        prepare = await talk.expect(Prepare)
        await talk.check_tag(1)
        pairs = pairs_of(self.desk, raw.plan.key_bits)
        if differs := difference(pairs, prepare.shares, prepare.sizes):
            raise BlockAborted(differs)
        record = make_record(
            self.desk,
            raw,
            "bob",
            Outcome(
                uuid=str(UUID(bytes=prepare.uuid)),
                round=round_,
                counts=counts,
                share=share,
                leak_bits=ledger.leak_bits,
                frames=ledger.frames,
                frames_helped=ledger.frames_helped,
                eps_auth=eps_auth,
                seed=seed,
                station_seconds=dict(visit.seconds),
                allocations=prepare.allocations,
                created=prepare.created,
                not_after=prepare.not_after,
            ),
        )
        await self.desk.blocking(self.desk.journal.prepare, record, secret)
        return record

    async def _open(self, talk: Conversation, raw: RawBlock) -> tuple[int, BlockCounts]:
        pool, counts = self.desk.journal.pool, raw.counts
        close = await talk.expect(BlockClose)
        await self.desk.blocking(pool.claim, close.round)
        talk.authentication = BlockAuthentication(pool, self.desk.settings.link_id, close.round, talk.transcript)
        if (close.n_z, close.n_x) != (counts.n_z, counts.n_x):
            raise BlockAborted(
                f"the sides count differently: Z {close.n_z} and {counts.n_z}, X {close.n_x} and {counts.n_x}"
            )
        await talk.send(XErrors(raw.run, raw.block, counts.m_x))
        check_hope(self.desk, raw, counts)
        return close.round, counts

    async def _correct(self, talk: Conversation, raw: RawBlock, block: Held) -> tuple[HelpLedger, tuple[int, int]]:
        """What became public, and the errors that were found, signal and decoy."""
        kernels = self.desk.kernels
        message = await talk.expect(Syndrome)
        if not 0.0 < message.qber < 0.5:
            raise BlockAborted(f"a code for QBER {message.qber:g} does not exist")
        if message.mode not in tuple(Mode):
            raise BlockAborted(f"a mode {message.mode} of reconciliation does not exist")
        plan = Plan.make(raw.counts.total_z, message.qber, Mode(message.mode))
        if message.code != plan.code.digest:
            raise BlockAborted(f"the sides have different codes for QBER {message.qber:g}")
        ledger = HelpLedger(plan)
        wanted = await kernels.correct(block, plan, message.data)
        while True:
            frames, rounds = tuple(f for f, _ in wanted), tuple(r for _, r in wanted)
            await talk.send(HelpWanted(raw.run, raw.block, frames, rounds))
            if not wanted:
                return ledger, (await kernels.corrected(block)).m_z
            ledger.add(wanted)
            answer = await talk.expect(FrameHelp)
            if len(answer.pieces) != len(wanted):
                raise BlockAborted("help for other frames than were asked for")
            wanted = await kernels.assist(block, wanted, answer.pieces)

    async def _verify(
        self, talk: Conversation, raw: RawBlock, counts: BlockCounts, ledger: HelpLedger, block: Held
    ) -> Share:
        verify = await talk.expect(Verify)
        tag = await self.desk.kernels.verification_tag(verify.key, block)
        if not tags_equal(tag, verify.tag):
            await self._answer(talk, raw, Result(raw.run, raw.block, False, (0, 0), ledger.leak_bits, 0))
            raise BlockAborted("verification failed: the corrected blocks differ", by_peer=True)
        try:
            share = decide(self.desk, raw, counts, ledger.leak_bits)
        except BlockAborted:
            # Alice learns the QBER for the code of her next block also from one that pays for nothing.
            await self._answer(talk, raw, Result(raw.run, raw.block, True, counts.m_z, ledger.leak_bits, 0))
            raise
        length = share.length.length_bits
        await self._answer(talk, raw, Result(raw.run, raw.block, True, counts.m_z, ledger.leak_bits, length))
        await talk.check_tag(0)
        return share

    async def _answer(self, talk: Conversation, raw: RawBlock, result: Result) -> None:
        await talk.send(result)
        await talk.send_tag(0)

    async def _finish(self, talk: Conversation, record: BlockRecord) -> None:
        """Prepared: only Alice's verdict ends this, now or in a later session."""
        uuid = UUID(record.uuid)
        verdict = self._verdicts[uuid] = asyncio.get_running_loop().create_future()
        try:
            await talk.send(Prepared(talk.raw.run, talk.raw.block, uuid.bytes))
            await talk.send_tag(1)
            committed = await verdict
        finally:
            self._verdicts.pop(uuid, None)
        if not committed:
            raise BlockAborted("the far end gave the prepared block up", by_peer=True)

    async def on_commit(self, message: Commit) -> None:
        """A verdict, of this session or about a block of an earlier one. A wrong token changes nothing."""
        uuid, journal = UUID(bytes=message.uuid), self.desk.journal
        rounds = {d.uuid: d.round for d in journal.in_doubt()}
        if uuid not in rounds:
            await self.send(Committed(message.uuid, journal.committed(uuid)))
            return
        try:
            check_token(journal.pool, rounds[uuid], message.verdict, message.token)
        except (BadTag, PoolRefused) as e:
            self.desk.on_event("block.verdict_refused", {"block": str(uuid), "why": str(e)})
            return
        if message.verdict:
            record = await self.desk.blocking(journal.commit, uuid)
            if record is not None:
                self.desk.on_block(record)
        else:
            await self.desk.blocking(journal.abort, uuid)
        waiting = self._verdicts.get(uuid)
        if waiting is not None and not waiting.done():
            waiting.set_result(message.verdict)
        else:
            self.desk.on_event("block.settled", {"block": str(uuid), "committed": message.verdict})
        await self.send(Committed(message.uuid, message.verdict))
