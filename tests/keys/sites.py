"""Two sites without network or light: real stores, outboxes, receivers and hand-over, joined by hand.

What goes between them lies in lists that a test may pass on, lose, repeat or reorder; a site may die at any moment, and
what it has on disk is all that is left.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from qmodd.crypto.suites import OpeningKey, SigningKey
from qmodd.identity import Recipient, Signer
from qmodd.keys.conversation import Blocking
from qmodd.keys.delivery import BatchFacts, KeyDelivery, Terms
from qmodd.keys.envelope import Provenance
from qmodd.keys.handover import Handover
from qmodd.keys.hearing import words
from qmodd.keys.journal import Journal
from qmodd.keys.notices import Notices
from qmodd.keys.pool import Pool
from qmodd.keys.protocol import HandoverMessage, decode, encode
from qmodd.keys.records import BlockRecord, SecretBits, key_id
from qmodd.keys.store import Database, KeyStore
from qmodd.outbox import Outbox
from qmodd.randomness import SeededRandomness
from qmodd.receive import Receiver, read_digests, read_states
from tests.keys.engine.test_store import record
from tests.uplink_fakes import HandClock

LIFETIME_S = 3600.0
SIGNERS = {name: Signer(f"QM-{name}", SigningKey.generate()) for name in ("A", "B")}
KMS = {name: Recipient("kms", OpeningKey.generate(), SigningKey.generate()) for name in ("A", "B")}
Arrived = tuple[str, bytes]


class Dead(BaseException):
    """The process was killed."""


class Fuse:
    """Kills its site right after the n-th commit to come, to whichever of its databases."""

    def __init__(self) -> None:
        self.left: int | None = None

    def guard(self, holder: Any) -> None:
        real, depth = holder.transaction, [0]

        @contextmanager
        def transaction() -> Iterator[Any]:
            depth[0] += 1
            try:
                with real() as db:
                    yield db
            finally:
                depth[0] -= 1
            if not depth[0] and self.left is not None:
                self.left -= 1
                if self.left <= 0:
                    raise Dead

        holder.transaction = transaction


def facts(_ids: Sequence[UUID]) -> BatchFacts:
    begin, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    return BatchFacts(begin, end, end, (Provenance(round=1, protocol="bb84", eps_sec=1e-9, qber=0.01),))


@dataclass
class Site:
    """One module and its KMS. `out`: what its outbox has published and not got acknowledged; `said`: words for the far
    site on their way."""

    name: str
    directory: Path
    clock: HandClock
    boots: int = 0
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)
    terms: dict[str, Terms] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory.mkdir()
        start = self.directory / "start"
        start.write_bytes(SeededRandomness(1).bytes(65_536))
        start.chmod(0o600)
        self.kms = Receiver(
            self.directory / "kms", KMS[self.name], {SIGNERS[self.name].name: SIGNERS[self.name].key.public}, self.clock
        )
        self.boot()

    def boot(self) -> None:
        self.boots += 1
        random = SeededRandomness(1000 * self.boots + ord(self.name))
        self.database = Database(self.directory / "keys.db")
        self.store = KeyStore(self.database, bytearray(32), "lab", ["kms"], random, self.clock)
        self.pool = Pool(self.directory / "ring", self.directory / "start", self.database)
        self.journal = Journal(self.store, self.pool)
        self.outbox = Outbox(self.directory / "outbox.db")
        signer, kms = SIGNERS[self.name], {"kms": KMS[self.name].public}
        self.delivery = KeyDelivery(
            self.store, self.outbox, signer, kms, "lab", "0" * 16, random, facts, print, 4, self.terms
        )
        notices = Notices(self.store, self.outbox, signer, signer.name, kms, random, self.clock, print, print)
        self.handover = Handover(
            self.journal, self.delivery, notices, self.outbox, self.clock, Blocking(False), self._record
        )
        self.handover._recover()
        self.outbox.release()
        self.outbox.renew()
        self.fuse = Fuse()
        self.fuse.guard(self.database)
        self.fuse.guard(self.outbox)

    def _record(self, name: str, fields: dict[str, Any]) -> None:
        self.events.append((name, fields))

    def die(self) -> None:
        """Nothing is put in order; only what is on disk stays."""
        self.pool.close()
        self.outbox.close()
        self.database.close()
        self.said.clear()

    def close(self) -> None:
        self.die()
        self.kms.close()

    # --- steps ---

    def prepare(self, block: UUID, keys: int, now: float, lifetime_s: float = LIFETIME_S) -> BlockRecord:
        made = record(keys=keys, uuid=block, replenish_bits=0, created=now, not_after=now + lifetime_s)
        secret = bytearray(hashlib.shake_256(block.bytes).digest(16 * keys))
        self.journal.prepare(made, SecretBits(secret, 8 * len(secret)))
        return made

    def work(self, acks: Sequence[bytes] = (), heard: Sequence[bytes] = (), *, die: bool = False) -> bool:
        """One turn of the worker; `die` before anything of it is passed on. True if it wants another one."""
        messages: list[HandoverMessage] = [decode(m) for m in heard]  # type: ignore[misc]
        step = self.handover._work([("kms", a) for a in acks], messages)
        if die:
            return True
        self.outbox.release(step.released)
        for happened in step.happened:
            self._record(happened.event, {**happened.fields, "entry": happened.n})
        if step.happened:
            self.store.happenings.done(step.happened[-1].n)
        self.events += step.said
        assert not step.wrong
        self.said += [encode(m) for m in step.answers]
        return step.again

    def tell(self) -> int:
        """Say everything that was not confirmed."""
        told = words(self.store.ledger.untold(0, 10_000))
        self.said += [encode(m) for m in told]
        return len(told)

    def published(self) -> list[Arrived]:
        """What a broker would be given now; it stays in the outbox until it is acknowledged."""
        return [(row.suffix.removeprefix("keys/kms").strip("/"), row.payload) for row in self.outbox.pending()]

    # --- questions ---

    def usable(self) -> dict[str, str]:
        return read_digests(self.kms.store, states=("usable", "handed_out"))

    def states(self) -> dict[str, str]:
        return read_states(self.kms.store)

    def told(self, event: str) -> int:
        """Keys that events of this name are about, each entry once."""
        entries = {f["entry"]: f["keys"] for name, f in self.events if name == event}
        return sum(entries.values())


@dataclass
class Two:
    """Both sites and one clock."""

    directory: Path
    clock: HandClock = field(default_factory=HandClock)
    blocks: dict[UUID, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.a = Site("A", self.directory / "A", self.clock)
        self.b = Site("B", self.directory / "B", self.clock)
        self.sites = (self.a, self.b)

    def other(self, site: Site) -> Site:
        return self.b if site is self.a else self.a

    @property
    def now(self) -> float:
        return self.clock.utc().timestamp()

    def block(self, keys: int, *, commit_far: bool = True, lifetime_s: float = LIFETIME_S) -> UUID:
        """Prepared on both sides and committed at A; at B now, or by `settle`."""
        uuid = UUID(int=len(self.blocks) + 1, version=4)
        for site in self.sites:
            site.prepare(uuid, keys, self.now, lifetime_s)
        self.a.journal.commit(uuid)
        if commit_far:
            self.b.journal.commit(uuid)
        self.blocks[uuid] = keys
        return uuid

    def commit_far(self) -> None:
        for doubt in self.b.journal.in_doubt():
            self.b.journal.commit(doubt.uuid)

    def settle(self, turns: int = 60) -> None:
        """Everything arrives until nothing is left to say."""
        self.commit_far()
        for _ in range(turns):
            busy = False
            for site in self.sites:
                site.outbox.renew()
                acks = [site.kms.handle(kind, payload) for kind, payload in site.published()]
                other = self.other(site)
                site.tell()
                heard, other.said = other.said, []
                busy |= bool(acks or heard or site.said)
                busy |= site.work(acks, heard)
            if not busy:
                return
        raise AssertionError("the sites do not come to rest")

    def check(self) -> Counter[str]:
        """After `settle`: every key is usable at both recipients with one value, or revoked everywhere; how many."""
        usable_a, usable_b = self.a.usable(), self.b.usable()
        assert usable_a == usable_b
        found: Counter[str] = Counter()
        for block, keys in self.blocks.items():
            secret = hashlib.shake_256(block.bytes).digest(16 * keys)
            for n in range(keys):
                name = str(key_id(block, n))
                if name in usable_a:
                    assert usable_a[name] == hashlib.sha256(secret[16 * n : 16 * n + 16]).hexdigest()
                    found["usable"] += 1
                    continue
                found["gone"] += 1
                for site in self.sites:
                    assert site.states().get(name, "revoked") in ("revoked", "expired")
        for site in self.sites:
            assert site.store.audit() is None
            counts = site.store.counts()
            assert counts["created"] == sum(self.blocks.values())
            assert site.store.ledger.revoking() == 0
            assert site.store.ledger.waiting_for_far() == 0
            ended = counts["states"]["revoked"] + counts["states"]["expired"] + counts["states"]["purged"]
            assert ended == found["gone"]
            assert site.told("key.revoked") + site.told("key.expired") == found["gone"]
            assert site.told("key.usable") >= found["usable"]
            assert site.outbox.counts() == {}
        return found

    def close(self) -> None:
        for site in self.sites:
            site.close()
