"""Re-key: another pre-shared pad, brought by hand to both modules, takes the place of the pool.

A pad that was approved is staged: keys stop, and each module tells the far one its pad's fingerprint. Once both have
told the same, or a module has had no session for a minute, it changes over: what was in doubt between the stores is
given up, the pool begins anew, and the session with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qmodd.app.wiring import Wiring
from qmodd.app.zeroising import Revoke
from qmodd.crypto.mac import wipe
from qmodd.keys.conversation import Blocking
from qmodd.keys.erasure import destroy
from qmodd.keys.journal import Journal
from qmodd.keys.pool import PoolRefused, fingerprint, read_pad
from qmodd.keys.rekey import FILE, NEXT_FILE, Agreement, PadRefused, RekeyFile, Turn
from qmodd.keys.settings import Phase
from qmodd.requests import Refusal


@dataclass
class Rekeying:
    """`step` is called once a second."""

    wiring: Wiring
    journal: Journal
    blocking: Blocking
    revoke: Revoke
    record: Callable[[str, dict[str, Any]], None]
    file: RekeyFile = field(init=False)
    _agreement: Agreement | None = None
    _told: Turn | None = None

    def __post_init__(self) -> None:
        state_dir = self.wiring.config.module.state_dir
        self.file = RekeyFile(state_dir / FILE)
        self.next: Path = state_dir / NEXT_FILE
        if self.file.staged is not None:
            self._offer(bytes.fromhex(self.file.staged.fingerprint))
        self.wiring.engine.on_rekey = self._heard

    # commands

    def check(self) -> None:
        """Raises Refusal when the pad that was brought cannot be the next one."""
        self._pad_in_order(dry=True)

    def stage(self, by: str) -> dict[str, Any]:
        """Keys stop from here on. Raises Refusal."""
        self._pad_in_order(by=by)
        assert self.file.staged is not None
        self._offer(bytes.fromhex(self.file.staged.fingerprint))
        self.record("rekey.staged", {"by": by, "fingerprint": self.file.staged.fingerprint})
        return self.told()

    def abandon(self, by: str) -> dict[str, Any]:
        """The pad that waits is destroyed. Raises Refusal."""
        try:
            self.file.abandon()
        except PadRefused as e:
            raise Refusal("wrong_state", f"rekey: {e}") from None
        destroy(self.next)
        self._withdraw_offer()
        self.record("rekey.abandoned", {"by": by})
        return self.told()

    def told(self) -> dict[str, Any]:
        staged = self.file.staged
        return {
            "staged": staged is not None,
            "fingerprint": staged.fingerprint if staged else "",
            "why": self.wiring.rekeying,
            "rounds": self.journal.pool.rounds_left,
        }

    def _pad_in_order(self, by: str = "", dry: bool = False) -> None:
        link = self.wiring.config.pair.link_id
        try:
            pad = read_pad(self.next)
            try:
                new = fingerprint(pad, link).hex()
            finally:
                wipe(pad)
            mine = fingerprint(self.journal.pool.secret, link).hex()
            if dry:
                self.file.judge(new, mine)
            else:
                at = self.wiring.clock.utc().isoformat(timespec="seconds")
                self.file.stage(new, mine, by, at)
        except PoolRefused as e:
            raise Refusal("wrong_state", f"rekey: {e}") from None
        except PadRefused as e:
            raise Refusal("wrong_state", f"rekey: {self.next}: {e}") from None

    # the change

    async def resume(self) -> None:
        """At a start, before there is an engine that runs: a change that was interrupted is done again."""
        if self.file.staged is not None and self.file.staged.switching:
            await self._try_switch()

    async def step(self) -> None:
        staged, agreement = self.file.staged, self._agreement
        if staged is None or agreement is None:
            return
        if staged.switching:
            await self._try_switch()
            return
        status = self.wiring.engine.status
        session = status.phase not in (Phase.OFFLINE, Phase.HANDSHAKE)
        turn = agreement.turn(self.wiring.clock.monotonic(), session, status.blocks_in_flight)
        if turn is Turn.SWITCH:
            await self.wiring.engine.offer_rekey()
            await self._try_switch()
        elif turn is not self._told:
            self._told = turn
            self.wiring.rekeying = f"re-keying: {turn.value}"
            self.record("rekey.waiting", {"why": turn.value})

    async def _try_switch(self) -> None:
        """A disk that does not take it is told once; it is tried again with every step, and no key is made before."""
        try:
            await self._switch()
        except (OSError, sqlite3.Error) as e:
            why = f"re-keying: {e}"[:200]
            if why != self.wiring.rekeying:
                self.wiring.rekeying = why
                self.record("rekey.failed", {"why": why})

    async def _switch(self) -> None:
        """May be interrupted anywhere and done again."""
        try:
            pad = self._staged_pad()
        except PoolRefused as e:
            # Only after the change was completed but for its last step, or where somebody touched the file.
            await self._without_pad(str(e))
            return
        try:
            self.file.switch()
            await self._settle()
            await self.blocking(self.journal.pool.replace, pad, _forget_doubts)
        finally:
            wipe(pad)
        await self.blocking(self.journal.store.database.truncate_log)
        await self._end()

    def _staged_pad(self) -> bytearray:
        """The very pad that was approved: a kill may have left the file overwritten in part. Raises PoolRefused."""
        pad, staged = read_pad(self.next), self.file.staged
        if staged is None or fingerprint(pad, self.wiring.config.pair.link_id).hex() != staged.fingerprint:
            wipe(pad)
            raise PoolRefused(f"{self.next}: not the pad that was approved")
        return pad

    async def _without_pad(self, why: str) -> None:
        staged = self.file.staged
        mine = fingerprint(self.journal.pool.secret, self.wiring.config.pair.link_id).hex()
        if staged is not None and staged.fingerprint == mine:
            await self._end()
            return
        self.record("rekey.failed", {"why": why[:480]})
        self.file.forget()
        self._withdraw_offer()

    async def _settle(self) -> None:
        """Alice: blocks that Bob has not confirmed cannot be settled with tokens of a pool that goes."""
        if self.wiring.config.module.role != "alice":
            return
        store = self.journal.store
        ids = [name for doubt in self.journal.verdicts_owed() for name in store.select(block=doubt.uuid)]
        if ids:
            await self.revoke(ids, "the pair was re-keyed before the far module had confirmed the block")

    async def _end(self) -> None:
        await self.blocking(destroy, self.next)
        self.file.done()
        self._withdraw_offer()
        self.wiring.engine.rekeyed()
        self.record("rekey.done", {"rounds": self.journal.pool.rounds_left})

    # what is told to the far module

    def _offer(self, offer: bytes) -> None:
        self._agreement, self._told = Agreement(offer), None
        self.wiring.rekeying = "re-keying: a new pad waits"
        self.wiring.engine.rekey_offer = offer

    def _withdraw_offer(self) -> None:
        self._agreement, self._told = None, None
        self.wiring.rekeying = ""
        self.wiring.engine.rekey_offer = b""

    def _heard(self, offer: bytes) -> None:
        if self._agreement is not None:
            self._agreement.hear(offer)


def _forget_doubts(db: sqlite3.Connection) -> None:
    """Prepared blocks are aborted, and no verdict is owed any more."""
    db.execute("DELETE FROM journal")
    db.execute("UPDATE blocks SET peer_done = 1")
