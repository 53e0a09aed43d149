"""Keys handed over at both sites: one worker that seals, believes answers, talks to the far module and tells the
recipients. Everything that waits for the disk runs in a thread; the event loop only passes things on.

A key is usable when both recipients have acknowledged it, and revoked everywhere when either site gives it up. All of
it is in the ledger and the outbox, so a restart goes on where it was.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from qmodd.clock import Clock
from qmodd.keys.conversation import Blocking
from qmodd.keys.delivery import KeyDelivery
from qmodd.keys.fields import ProtocolError
from qmodd.keys.handover_ledger import Level
from qmodd.keys.happenings import Happening, Scalar
from qmodd.keys.hearing import Hearing, words
from qmodd.keys.journal import Journal
from qmodd.keys.notices import Notices, is_notice_ack
from qmodd.keys.protocol import HandoverMessage, Message
from qmodd.keys.records import KeyState
from qmodd.keys.store_errors import StoreRefused
from qmodd.outbox import Outbox
from qmodd.randomness import Randomness

PERIOD_S = 0.5
# Words that were not confirmed within this are said again.
RETELL_S = 5.0
TELL_AT_ONCE = 4096
JUDGE_LIFETIMES_S = 10.0
AUDIT_S = 3600.0
# Keys are deleted so long after the end of their lifetime.
PURGE_AFTER_S = 7 * 86_400.0
MOST_WAITING = 512
BATCHES_AT_ONCE = 4

Send = Callable[[Message], Awaitable[None]]
Record = Callable[[str, dict[str, Scalar]], None]


@dataclass(frozen=True)
class Revocation:
    """What a revocation did here: keys given up, and ids that this module does not know (any more)."""

    revoked: tuple[UUID, ...]
    unknown: tuple[UUID, ...]


@dataclass
class _Step:
    """What one turn of the worker left for the event loop to do."""

    released: list[int] = field(default_factory=list)
    happened: list[Happening] = field(default_factory=list)
    said: list[tuple[str, dict[str, Scalar]]] = field(default_factory=list)
    answers: list[HandoverMessage] = field(default_factory=list)
    again: bool = False
    wrong: str = ""


@dataclass
class Handover:
    """`record` is the event log, `account` what the last audit of the key account found (None: in order). `run` is the
    worker; the engine calls `session` and `hear`, the door `on_key_ack`."""

    journal: Journal
    delivery: KeyDelivery
    notices: Notices
    outbox: Outbox
    clock: Clock
    blocking: Blocking
    record: Record
    purge_after_s: float = PURGE_AFTER_S
    acks_dropped: int = field(default=0, init=False)
    account: str | None = field(default=None, init=False)

    @classmethod
    def of(
        cls,
        journal: Journal,
        delivery: KeyDelivery,
        module: str,
        clock: Clock,
        randomness: Randomness,
        blocking: Blocking,
        record: Record,
    ) -> Self:
        """With notices to the recipients of `delivery`, signed by the same signer; `module` is the serial number."""
        store, outbox, unused = journal.store, delivery.outbox, lambda *_: None
        signer, recipients = delivery.sender, delivery.recipients
        notices = Notices(store, outbox, signer, module, recipients, randomness, clock, unused, unused)
        return cls(journal, delivery, notices, outbox, clock, blocking, record)

    def __post_init__(self) -> None:
        self.store = self.journal.store
        self._hearing = Hearing(self.journal)
        self._acks: deque[tuple[str, bytes]] = deque()
        self._words: deque[HandoverMessage] = deque()
        self._answers: deque[HandoverMessage] = deque(maxlen=MOST_WAITING)
        self._wake, self._tell = asyncio.Event(), asyncio.Event()
        # Sealing and giving up take turns: a key must not be given up between its sealing and its mark.
        self._turn = threading.Lock()
        self._step = _Step()
        self._judged = self._audited = -1e9
        self._closed = False
        self._wrong = ""
        self.delivery.release = self.notices.release = lambda row_id: self._step.released.append(row_id)
        self.delivery.audit = self.notices.audit = lambda name, fields: self._step.said.append((name, dict(fields)))

    # --- what others call, in the event loop ---

    def on_key_ack(self, recipient: str, payload: bytes) -> None:
        """From the door: an answer to a batch or a notice, not believed yet. It comes again if there is no room."""
        if len(self._acks) >= MOST_WAITING:
            self.acks_dropped += 1
            return
        self._acks.append((recipient, payload))
        self._wake.set()

    def hear(self, message: HandoverMessage) -> None:
        """From the engine: what the far module says, in a session of its own. It says it again if there is no room."""
        if len(self._words) < MOST_WAITING:
            self._words.append(message)
            self._wake.set()

    def poke(self) -> None:
        """There may be something to do."""
        self._wake.set()

    async def revoke(self, ids: Sequence[UUID], why: str) -> Revocation:
        """Give keys up at both sites and at both recipients; durable here when it returns, told by and by."""
        found = await self.blocking(self._revoke, tuple(dict.fromkeys(ids)), why)
        self.poke()
        return found

    def revoking(self) -> int:
        """Keys given up that are not known to be gone at both recipients."""
        return self.store.ledger.revoking()

    async def session(self, send: Send) -> None:
        """Tell the far module whatever it has not confirmed, and go on until cancelled. Raises what `send` raises."""
        asked: dict[int, Level] = {}
        again_at = 0.0
        self._answers.clear()
        while True:
            self._tell.clear()
            while self._answers:
                await send(self._answers.popleft())
            untold = await self.blocking(self.store.ledger.untold, 0, TELL_AT_ONCE)
            now = self.clock.monotonic()
            if now >= again_at:
                asked, again_at = {}, now + RETELL_S
            new = [u for u in untold if asked.get(u.n) is not u.level]
            for message in words(new):
                await send(message)
            asked = {u.n: u.level for u in untold}
            await self._told_or(again_at - now if untold else None)

    async def _told_or(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._tell.wait()
        except TimeoutError:
            return

    def close(self) -> None:
        """After `run` was cancelled, before store and outbox are closed: waits for a turn that is still going on."""
        with self._turn:
            self._closed = True

    # --- the worker ---

    async def run(self) -> None:
        """Until cancelled."""
        await self.blocking(self._recover)
        self.outbox.release()
        while True:
            self._wake.clear()
            acks, heard = list(self._acks), list(self._words)
            self._acks.clear()
            self._words.clear()
            step = await self.blocking(self._work, acks, heard)
            await self._pass_on(step)
            if not step.again:
                try:
                    async with asyncio.timeout(PERIOD_S):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _pass_on(self, step: _Step) -> None:
        if step.released:
            self.outbox.release(step.released)
        for name, fields in step.said:
            self.record(name, fields)
        for h in step.happened:
            self.record(h.event, {**h.fields, "entry": h.n})
        if step.happened:
            await self.blocking(self.store.happenings.done, step.happened[-1].n)
        if step.wrong and step.wrong != self._wrong:
            self.record("handover.refused", {"why": step.wrong})
        self._wrong = step.wrong
        self._answers.extend(step.answers)
        self._tell.set()

    def _recover(self) -> None:
        with self._turn:
            self.delivery.recover()
            self.store.ledger.adopt()

    def _work(self, acks: Sequence[tuple[str, bytes]], heard: Sequence[HandoverMessage]) -> _Step:
        with self._turn:
            step = self._step = _Step()
            if self._closed:
                return step
            for recipient, payload in acks:
                (self.notices.on_ack if is_notice_ack(payload) else self.delivery.on_key_ack)(recipient, payload)
            self._hear(heard, step)
            self._judge()
            told = self.notices.queue()
            try:
                sent = self.delivery.deliver(batches=BATCHES_AT_ONCE)
            except StoreRefused as e:
                sent, step.wrong = 0, str(e)
            step.happened = self.store.happenings.pending()
            step.again = bool(told or sent or step.happened)
            return step

    def _hear(self, heard: Sequence[HandoverMessage], step: _Step) -> None:
        try:
            step.answers = self._hearing.hear(heard).answers
        except ProtocolError as e:
            step.wrong = str(e)

    def _judge(self) -> None:
        """Lifetimes and the account, now and then; lifetimes by a synchronised clock only."""
        now = self.clock.monotonic()
        if now - self._judged >= JUDGE_LIFETIMES_S and self.clock.utc_synchronised():
            self._judged = now
            utc = self.clock.utc().timestamp()
            self.store.expire(utc)
            self.store.purge(utc - self.purge_after_s)
            self.delivery.withdraw(self._ended)
        if now - self._audited >= AUDIT_S:
            self._audited = now
            self.account = self.store.audit()
            if self.account is not None:
                self._step.said.append(("key.account", {"why": self.account}))

    def _ended(self, key: UUID) -> bool:
        return self.store.state_of(key) in (None, KeyState.EXPIRED, KeyState.REVOKED)

    def _revoke(self, ids: Sequence[UUID], why: str) -> Revocation:
        with self._turn:
            unknown = tuple(i for i in ids if self.store.state_of(i) is None)
            return Revocation(tuple(self.store.revoke(ids, why)), unknown)

    def zeroise(self) -> None:
        """Every key's bytes, every prepared block and every sealed batch destroyed, between two turns of the worker;
        may be repeated. Waits for the disk: call it in a thread."""
        with self._turn:
            self.store.zeroise()
            self.delivery.withdraw_all()
            self.outbox.rows("PRAGMA wal_checkpoint(TRUNCATE)")
