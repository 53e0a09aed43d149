"""Zeroise with real files and stores: killed at every step it is completed at the next start, and no secret is left."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from qmodd.app.vault import RING_FILE, Vault
from qmodd.app.zeroising import LATCH, Zeroising
from qmodd.config import Config
from qmodd.crypto.suites import BadKeyFile, SigningKey
from qmodd.identity import Signer
from qmodd.keys.conversation import Blocking
from qmodd.keys.journal import Journal
from qmodd.keys.pool import MINIMUM_BYTES
from qmodd.keys.records import SecretBits, key_id
from qmodd.keys.rekey import NEXT_FILE
from qmodd.keys.store import Database, KeyStore, StoreRefused
from qmodd.outbox import Outbox
from qmodd.randomness import SeededRandomness
from tests.keys.engine.test_store import record
from tests.kills import Killed, killed_after
from tests.uplink_fakes import HandClock, Log

KEYS = 6
BLOCKS = (UUID(int=1, version=4), UUID(int=2, version=4))


class Module:
    """One module's secrets and stores in a directory; `start` is a start of core up to where things begin to run."""

    def __init__(self, home: Path) -> None:
        self.home, self.clock = home, HandClock()
        self.state = home / "state"
        self.state.mkdir(parents=True)
        self.log, self.latches = Log(), dict[str, str]()
        self.config = cast(
            Config,
            SimpleNamespace(
                module=SimpleNamespace(state_dir=self.state, serial="QM-A-0001"),
                pair=SimpleNamespace(pre_shared_key=home / "psk.key", key_encryption_key=home / "kek.key"),
                uplink=SimpleNamespace(identity=home / "module.key"),
            ),
        )
        self.provision(1)
        self.start()

    def provision(self, seed: int) -> None:
        rng = SeededRandomness(seed)
        for path, data in ((self.home / "psk.key", rng.bytes(MINIMUM_BYTES)), (self.home / "kek.key", rng.bytes(32))):
            path.touch(0o600)
            path.write_bytes(data)
        Signer("QM-A-0001", SigningKey.generate()).save(self.home / "module.key")

    def start(self) -> None:
        self.vault = Vault(self.config, SeededRandomness(99))
        self.database = Database(self.state / "keys.db")
        self.pool, self.kek = self.vault.pool(self.database), self.vault.kek()
        self.signer = self.vault.signer()
        self.store = KeyStore(self.database, self.kek, "lab", ["kms"], SeededRandomness(5), self.clock)
        self.journal = Journal(self.store, self.pool)
        self.outbox = Outbox(self.state / "outbox.db")
        self.revoked: list[UUID] = []
        self.safekeeping = SimpleNamespace(held_by=dict[str, Callable[[], str]](), latch=self.latches.setdefault)
        operator = SimpleNamespace(safekeeping=self.safekeeping, interrupt=lambda why: None)
        engine = SimpleNamespace(desk=SimpleNamespace(randomness=SeededRandomness(6)), drop_blocks=lambda why: None)

        async def stop_keying(why: str) -> None:
            return None

        wiring = SimpleNamespace(
            clock=self.clock, events=SimpleNamespace(record=self.log), engine=engine, stop_keying=stop_keying
        )
        self.zeroising = Zeroising(
            cast(Any, wiring),
            cast(Any, operator),
            self.vault,
            self.kek,
            self.store,
            self.pool,
            Blocking(False),
            self._revoke,
            self._stores,
        )
        self.zeroising.at_start()

    async def _revoke(self, ids: Any, why: str) -> int:
        self.revoked += ids
        return 0

    def _stores(self) -> None:
        """As the hand-over does it."""
        self.store.zeroise()
        with self.outbox.transaction() as db:
            db.execute("DELETE FROM rows WHERE kind = 'key'")
        self.outbox.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    def fill(self) -> None:
        """One block of keys, one that is prepared, a sealed batch, a pad that waits."""
        for block in BLOCKS:
            made = record(keys=KEYS, uuid=block, replenish_bits=0)
            secret = bytearray(key_bytes(block))
            self.journal.prepare(made, SecretBits(secret, 8 * len(secret)))
        self.journal.commit(BLOCKS[0])
        self.outbox.put("keys/kms", b"sealed batch " * 100, kind="key")
        self.outbox.put("event", b"what has happened", kind="event")
        (self.state / NEXT_FILE).touch(0o600)
        (self.state / NEXT_FILE).write_bytes(SeededRandomness(8).bytes(MINIMUM_BYTES))

    def secrets(self) -> dict[str, bytes]:
        keys = key_bytes(BLOCKS[0]), key_bytes(BLOCKS[1])
        return {
            "kek": (self.home / "kek.key").read_bytes(),
            "pre-shared": (self.home / "psk.key").read_bytes()[:64],
            "pool": (self.home / "psk.key").read_bytes()[64:128],
            "next": (self.state / NEXT_FILE).read_bytes()[:64],
            "identity": (self.home / "module.key").read_bytes(),
            "batch": b"sealed batch sealed batch",
            **{f"key {b}.{n}": keys[b][16 * n : 16 * (n + 1)] for b in (0, 1) for n in range(KEYS)},
            "sealed key": self.sealed(),
        }

    def sealed(self) -> bytes:
        return bytes(cast(bytes, self.database.rows("SELECT sealed FROM keys ORDER BY number LIMIT 1")[0][0]))

    def left(self, secrets: dict[str, bytes]) -> list[tuple[str, str]]:
        files = [p for p in self.home.rglob("*") if p.is_file()]
        return [(what, p.name) for p in files for what, s in secrets.items() if s in p.read_bytes()]

    def stop(self) -> None:
        """Nothing is put in order."""
        self.pool.close()
        self.database.close()
        self.outbox.close()

    def zeroise(self) -> dict[str, Any]:
        return asyncio.run(self.zeroising.run("sold", "ann and ben"))


def key_bytes(block: UUID) -> bytes:
    return hashlib.shake_256(block.bytes).digest(16 * KEYS)


@pytest.fixture
def ram_path() -> Iterator[Path]:
    """Every step syncs several times; only what happens in which order matters here."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory, prefix="qmodd-zeroise-") as name:
        yield Path(name)


@pytest.fixture
def module(ram_path: Path) -> Iterator[Module]:
    one = Module(ram_path / "one")
    yield one
    one.stop()


def test_nothing_is_left_and_the_account_stays(module: Module) -> None:
    module.fill()
    secrets = module.secrets()
    assert {what for what, _ in module.left(secrets)} >= {"kek", "pre-shared", "pool", "next", "identity", "batch"}
    told = module.zeroise()
    assert told["kept"] == []
    assert module.left(secrets) == []
    assert module.store.audit() is None
    assert module.store.totals()["revoked"] == KEYS
    assert module.revoked == [key_id(BLOCKS[0], n) for n in range(KEYS)]
    assert module.outbox.counts() == {"event_waiting": 1}
    assert module.latches[LATCH] == "zeroised by ann and ben: sold"
    assert [n for n in module.log.names if n.startswith("zeroise.")] == ["zeroise.begun", "zeroise.done"]


def test_killed_anywhere_it_is_completed_at_the_next_start(ram_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in count():
        module = Module(ram_path / str(step))
        module.fill()
        secrets, survived = module.secrets(), False
        try:
            with killed_after(step, monkeypatch, (module.database, module.outbox)) as done:
                module.zeroise()
                survived = True
        except Killed:
            pass
        module.stop()
        marked = module.vault.erasure.path.exists()
        assert marked or step == 0, "the mark is there before anything is gone"
        module.latches.clear()
        if marked:
            module.start()
            assert module.left(secrets) == [], (step, done[-3:])
            assert module.store.audit() is None
            assert module.store.totals()["distilled"] == 0
            assert module.latches[LATCH] == "zeroised by ann and ben: sold"
            assert module.zeroising.why_latched().startswith("zeroised; to be brought anew: key-encryption key")
            module.stop()
        if survived:
            break
    assert step > 20


def test_a_completion_that_is_killed_is_completed(ram_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in count():
        module = Module(ram_path / str(step))
        module.fill()
        secrets = module.secrets()
        module.zeroising.begin("sold", "ann and ben")
        module.stop()
        survived = False
        try:
            with killed_after(step, monkeypatch, (module.database, module.outbox)):
                module.start()
                survived = True
        except Killed:
            pass
        module.start()
        assert module.left(secrets) == []
        assert module.latches[LATCH]
        module.stop()
        if survived:
            break
    assert step > 5


def test_a_restart_stands_in_for_what_is_gone_and_new_secrets_bring_it_back(module: Module) -> None:
    module.fill()
    old = module.secrets()
    module.zeroise()
    module.stop()
    module.start()
    stand_in = bytes(module.pool.secret)
    assert module.vault.missing
    assert "zeroise.waiting" in module.log.names
    assert "to be brought anew" in module.safekeeping.held_by[LATCH]()
    module.stop()
    module.provision(2)
    module.start()
    assert module.vault.missing == []
    assert module.log.names[-1] == "zeroise.renewed"
    assert bytes(module.pool.secret) == (module.home / "psk.key").read_bytes()[:64] != stand_in
    assert module.pool.next_round == 0
    assert module.pool.since_begun(module.store.commits) == 0
    assert module.safekeeping.held_by[LATCH]() == ""
    assert module.latches[LATCH]  # a person clears it
    assert stand_in not in (module.state / RING_FILE).read_bytes()
    assert module.left(old) == []
    block = UUID(int=3, version=4)
    secret = bytearray(key_bytes(block))
    module.journal.prepare(record(keys=KEYS, uuid=block, replenish_bits=0), SecretBits(secret, 8 * len(secret)))
    module.journal.commit(block)
    assert module.store.waiting() == KEYS


def test_new_secrets_in_a_running_module_count_after_a_restart(module: Module) -> None:
    module.zeroise()
    module.provision(2)
    assert "restart core" in module.zeroising.why_latched()


def test_twice_is_once(module: Module) -> None:
    module.fill()
    first = module.zeroise()
    again = asyncio.run(module.zeroising.run("other", "eve"))
    assert again == first
    assert module.log.names.count("zeroise.done") == 1


def test_the_tamper_contact_opens_nothing_more_from_its_first_instant(module: Module) -> None:
    module.fill()
    module.zeroising.begin("the cover was opened", "tamper contact")
    for name in ("kek.key", "psk.key", f"state/{NEXT_FILE}"):
        assert not (module.home / name).exists()
    kek = bytes(module.kek)
    module.zeroise()
    assert bytes(module.kek) != kek
    assert module.latches[LATCH] == "zeroised by tamper contact: the cover was opened"


def test_a_disk_that_takes_no_mark_does_not_save_the_secrets(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    module.fill()
    secrets = module.secrets()

    def full(*_a: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qmodd.keys.erasure.write_whole", full)
    module.zeroise()
    assert "zeroise.mark_not_stored" in module.log.names
    assert module.left(secrets) == []


def test_what_a_step_meets_is_told_and_stops_nothing(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    module.fill()
    secrets = module.secrets()

    def broken() -> None:
        raise RuntimeError("the outbox is damaged")

    module.zeroising.stores = broken
    told = module.zeroise()
    assert told["kept"][0] == "keys: RuntimeError: the outbox is damaged"
    assert {what for what, _ in module.left(secrets)} == {"batch", "sealed key"}  # both of use to nobody any more
    assert not (module.home / "module.key").exists()


def test_a_module_that_was_not_zeroised_still_needs_its_secrets(module: Module) -> None:
    (module.home / "kek.key").unlink()
    (module.home / "module.key").unlink()
    vault = Vault(module.config, SeededRandomness(1))
    with pytest.raises(StoreRefused):
        vault.kek()
    with pytest.raises(BadKeyFile):
        vault.signer()
