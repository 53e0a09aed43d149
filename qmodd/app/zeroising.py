"""Zeroise: every secret of the module destroyed, by command of two people or by the tamper contact.

First the mark, then the key that opens all others, then everything else; what is interrupted is completed at the next
start (`vault`). Accounts, provenance, events, alarms, calibrations and settings stay: they hold no secret, and say what
was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from qmodd.app.operator import Operator
from qmodd.app.vault import Vault
from qmodd.app.wiring import Wiring
from qmodd.crypto.mac import wipe
from qmodd.keys.conversation import Blocking
from qmodd.keys.erasure import IDENTITY, KEK, NEXT_PRE_SHARED, PRE_SHARED, RING, Mark, leftovers
from qmodd.keys.pool import MINIMUM_BYTES, Pool
from qmodd.keys.store import KeyStore
from qmodd.requests import report_progress

LATCH = "zeroised"
# What recipients are told may take so long; the rest does not wait for it.
REVOKE_S = 10.0

Revoke = Callable[[Sequence[UUID], str], Awaitable[int]]


@dataclass
class Zeroising:
    """`kek` is the buffer that the store holds. `revoke` tells both sites; `stores` destroys what the key store and the
    outbox hold, and may be repeated."""

    wiring: Wiring
    operator: Operator
    vault: Vault
    kek: bytearray
    store: KeyStore
    pool: Pool
    blocking: Blocking
    revoke: Revoke
    stores: Callable[[], None]
    _running: asyncio.Lock = field(default_factory=asyncio.Lock)
    _kept: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._kept = dict(self.vault.kept)
        self.operator.safekeeping.held_by[LATCH] = self.why_latched

    # at a start

    def at_start(self) -> None:
        """Completes what the vault has begun to complete, or tells that a module was renewed."""
        mark = self.vault.erasure.mark
        if mark is None:
            return
        # In any case: a commit that was under way in the last life may have come after.
        self.stores()
        if self.vault.interrupted:
            self.vault.erasure.finish(self.vault.kept)
            self._event("zeroise.completed", by=mark.by, why=mark.why, kept=self._told_kept())
        self._latch(mark)
        if self.vault.missing:
            self._event("zeroise.waiting", why=f"to be brought anew: {', '.join(self.vault.missing)}")
        else:
            self.vault.erasure.renewed()
            self._event("zeroise.renewed", why=f"zeroised {mark.at[:19]}; new secrets are in their places")

    def why_latched(self) -> str:
        """Why the latch may not be cleared; "" when every secret was brought anew."""
        if self.vault.erasure.mark is None:
            return ""
        missing = self.vault.erasure.missing()
        if missing:
            return f"zeroised; to be brought anew: {', '.join(missing)}"
        return "zeroised; new secrets are in their places: restart core, which then takes them"

    # now

    def begin(self, why: str, by: str) -> None:
        """The mark and the keys that open everything at rest: done when it returns. May be repeated."""
        mark = Mark(why[:400], by, self.wiring.clock.utc().isoformat(timespec="milliseconds"))
        try:
            if not self.vault.erasure.begin(mark):
                return
        except OSError as e:
            self._event("zeroise.mark_not_stored", why=str(e))
        self._kept = self.vault.erasure.destroy_files(KEK, PRE_SHARED, NEXT_PRE_SHARED)
        self._event("zeroise.begun", by=by, why=why)
        self._latch(mark)
        self.operator.interrupt(f"zeroised by {by}: {why}")

    async def run(self, why: str, by: str) -> dict[str, Any]:
        """All of it. What cannot be destroyed is told and does not stop the rest. May be repeated."""
        self.begin(why, by)
        async with self._running:
            mark = self.vault.erasure.mark
            if mark is None or not mark.done:
                await self._all()
        return self.told()

    def told(self) -> dict[str, Any]:
        mark = self.vault.erasure.mark
        return {
            "zeroised": mark is not None,
            "why": mark.why if mark else "",
            "by": mark.by if mark else "",
            "at": mark.at if mark else "",
            "kept": [f"{name}: {why}" for name, why in sorted(self._kept.items())],
            "missing": self.vault.erasure.missing() if mark else [],
        }

    async def _all(self) -> None:
        given_up = self.store.not_usable()
        self.wiring.engine.drop_blocks("zeroised")
        await self._try(0.1, "keys", lambda: self.blocking(self.stores))
        # Whatever is sealed from here on, nobody can open after the next start.
        self.kek[:] = self.wiring.engine.desk.randomness.bytes(len(self.kek))
        await self._try(0.4, RING, self._another_ring)
        await self._try(0.6, "stop of keys", lambda: self.wiring.stop_keying("zeroised"))
        await self._try(0.7, "revocation", lambda: self._revoke(given_up))
        await self._try(0.8, "keys of a block in work", lambda: self.blocking(self.stores))
        self._kept |= self.vault.erasure.destroy_files(IDENTITY)
        await self._try(0.9, "mark", self._finish)
        totals = {f"{state}_keys": n for state, n in self.store.totals().items()}
        self._event("zeroise.done", **totals, kept=self._told_kept())

    async def _try(self, fraction: float, what: str, action: Callable[[], Awaitable[object]]) -> None:
        """Whatever one step meets, the next ones are taken. `fraction`: how far it all is."""
        report_progress(fraction, what)
        try:
            await action()
        except Exception as e:
            self._kept[what] = f"{type(e).__name__}: {e}"[:200]
            self._event("zeroise.step_failed", step=what, why=self._kept[what])

    async def _another_ring(self) -> None:
        """The pool's file is overwritten; what stands in for it is known to nobody."""
        pad = bytearray(self.wiring.engine.desk.randomness.bytes(MINIMUM_BYTES))
        try:
            await self.blocking(self.pool.replace, pad)
        finally:
            wipe(pad)
        leftovers(self.vault.erasure.files[RING])

    async def _revoke(self, ids: Sequence[UUID]) -> None:
        """What no recipient may use yet is given up at both sites."""
        if ids:
            async with asyncio.timeout(REVOKE_S):
                await self.revoke(ids, "the module was zeroised")

    async def _finish(self) -> None:
        self.vault.erasure.finish({n: w for n, w in self._kept.items() if n in self.vault.erasure.files})

    def _latch(self, mark: Mark) -> None:
        self.operator.safekeeping.latch(LATCH, f"zeroised by {mark.by}: {mark.why}")

    def _told_kept(self) -> str:
        return "; ".join(f"{name}: {why}" for name, why in sorted(self._kept.items()))[:480]

    def _event(self, name: str, **fields: str | int) -> None:
        shown = {k: v[:480] if isinstance(v, str) else v for k, v in fields.items() if v != ""}
        self.wiring.events.record(name, shown)
