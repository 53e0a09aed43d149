"""Re-key of one module with real files and stores: what is refused, what waits, and kills at every step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from qmodd.app.rekeying import Rekeying
from qmodd.keys.conversation import Blocking
from qmodd.keys.journal import Journal
from qmodd.keys.pool import MINIMUM_BYTES, Pool
from qmodd.keys.records import KeyState, SecretBits
from qmodd.keys.rekey import ALONE_S, NEXT_FILE
from qmodd.keys.settings import Phase
from qmodd.keys.store import Database, KeyStore
from qmodd.randomness import SeededRandomness
from qmodd.requests import Refusal
from tests.keys.engine.test_store import record
from tests.kills import Killed, killed_after
from tests.uplink_fakes import HandClock, Log

OLD, NEW, OTHER = 1, 2, 3
BLOCKS = (UUID(int=1, version=4), UUID(int=2, version=4))


def pad(seed: int) -> bytes:
    return SeededRandomness(seed).bytes(MINIMUM_BYTES)


class Engine:
    """What the engine is told."""

    def __init__(self) -> None:
        self.rekey_offer = b""
        self.on_rekey: Callable[[bytes], None] = lambda fingerprint: None
        self.status = SimpleNamespace(phase=Phase.IDLE, blocks_in_flight=0)
        self.offered: list[bytes] = []
        self.ended = 0

    async def offer_rekey(self) -> None:
        self.offered.append(self.rekey_offer)

    def rekeyed(self) -> None:
        self.ended += 1


class Module:
    def __init__(self, home: Path, role: str = "alice") -> None:
        home.mkdir(parents=True)
        self.home, self.role, self.clock, self.log = home, role, HandClock(), Log()
        (home / "psk").touch(0o600)
        (home / "psk").write_bytes(pad(OLD))
        self.start()

    def start(self) -> None:
        self.database = Database(self.home / "keys.db")
        self.pool = Pool(self.home / "pool.ring", self.home / "psk", self.database)
        self.store = KeyStore(self.database, bytearray(32), "lab", ["kms"], SeededRandomness(5), self.clock)
        self.journal, self.engine = Journal(self.store, self.pool), Engine()
        config = SimpleNamespace(
            module=SimpleNamespace(state_dir=self.home, role=self.role), pair=SimpleNamespace(link_id="lab")
        )
        self.wiring = cast(Any, SimpleNamespace(config=config, clock=self.clock, engine=self.engine, rekeying=""))
        self.rekeying = Rekeying(self.wiring, self.journal, Blocking(False), self._revoke, self.log)

    async def _revoke(self, ids: Sequence[UUID], why: str) -> int:
        return len(self.store.revoke(list(ids), why))

    def bring(self, seed: int = NEW, mode: int = 0o600) -> None:
        path = self.home / NEXT_FILE
        path.touch()
        path.chmod(mode)
        path.write_bytes(pad(seed))

    def fill(self) -> None:
        """A block that the far module has confirmed, one that it has not, and one that is prepared."""
        for number, block in enumerate((*BLOCKS, UUID(int=3, version=4))):
            made = record(keys=2, uuid=block, replenish_bits=0, round=number)
            self.pool.claim(number)
            self.journal.prepare(made, SecretBits(bytearray(32), 256))
            if block in BLOCKS:
                self.journal.commit(block)
        self.journal.peer_done(BLOCKS[0])

    def stop(self) -> None:
        self.pool.close()
        self.database.close()

    def step(self, seconds: float = 1.0) -> None:
        self.clock.t += seconds
        asyncio.run(self.rekeying.step())

    @property
    def secret(self) -> bytes:
        return bytes(self.pool.secret)


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Module]:
    one = Module(tmp_path / "alice")
    yield one
    one.stop()


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as e:
        act()
    assert e.value.code == "wrong_state"
    return str(e.value)


def test_a_pad_has_to_be_brought_and_be_a_new_one(module: Module) -> None:
    assert "cannot be read" in refused(module.rekeying.check)
    module.bring(mode=0o640)
    assert "0640" in refused(module.rekeying.check)
    module.bring(OLD)
    assert "never used again" in refused(module.rekeying.check)
    (module.home / NEXT_FILE).write_bytes(b"short")
    assert "at least 65536" in refused(module.rekeying.check)
    module.bring()
    module.rekeying.check()
    assert module.rekeying.told()["staged"] is False


def test_staged_it_stops_keys_and_is_offered(module: Module) -> None:
    module.bring()
    told = module.rekeying.stage("ann and ben")
    assert told["staged"]
    assert module.engine.rekey_offer.hex() == told["fingerprint"]
    assert module.wiring.rekeying.startswith("re-keying")
    module.step()
    assert "has to be re-keyed with the same pad" in module.wiring.rekeying
    assert "waits already" in refused(module.rekeying.check)
    assert module.secret == pad(OLD)[:64]
    assert b"pad" not in module.rekeying.file.path.read_bytes()


def test_in_a_session_it_changes_over_when_the_far_one_offers_the_same(module: Module) -> None:
    module.fill()
    module.bring()
    module.rekeying.stage("ann and ben")
    module.step(10 * ALONE_S)
    assert module.secret == pad(OLD)[:64]
    module.engine.on_rekey(b"other")
    module.step()
    assert "another pad" in module.wiring.rekeying
    module.engine.on_rekey(module.engine.rekey_offer)
    module.engine.status.blocks_in_flight = 1
    module.step()
    assert module.secret == pad(OLD)[:64]
    offer, module.engine.status.blocks_in_flight = module.engine.rekey_offer, 0
    module.step()
    assert module.engine.offered == [offer]
    check_changed(module)


def test_without_a_session_it_changes_over_after_a_minute(module: Module) -> None:
    module.fill()
    module.bring()
    module.rekeying.stage("ann and ben")
    module.engine.status.phase = Phase.HANDSHAKE
    module.step()
    module.step(ALONE_S - 1.0)
    assert module.secret == pad(OLD)[:64]
    module.step()
    check_changed(module)


def check_changed(module: Module, role: str = "alice") -> None:
    assert module.secret == pad(NEW)[:64]
    assert (module.pool.next_round, module.pool.since_begun(module.store.commits)) == (0, 0)
    assert module.journal.in_doubt() == []
    assert module.journal.verdicts_owed() == []
    states = [{module.store.state_of(i) for i in module.store.select(block=b)} for b in BLOCKS]
    assert states == [{KeyState.DISTILLED}, {KeyState.REVOKED if role == "alice" else KeyState.DISTILLED}]
    assert module.store.audit() is None
    assert not (module.home / NEXT_FILE).exists()
    assert (module.wiring.rekeying, module.engine.rekey_offer, module.engine.ended) == ("", b"", 1)
    module.bring(OLD)
    assert "never used again" in refused(module.rekeying.check)
    module.bring(NEW)
    assert "never used again" in refused(module.rekeying.check)
    for left in ("pool.new", NEXT_FILE):
        (module.home / left).unlink(missing_ok=True)
    files = [p for p in module.home.iterdir() if p.name not in ("psk", "pool.ring")]
    assert [p.name for p in files if pad(OLD)[:64] in p.read_bytes() or pad(NEW)[:64] in p.read_bytes()] == []


def test_bob_keeps_blocks_that_alice_decides_about(tmp_path: Path) -> None:
    bob = Module(tmp_path / "bob", "bob")
    bob.fill()
    bob.bring()
    bob.rekeying.stage("ann and ben")
    bob.engine.on_rekey(bob.engine.rekey_offer)
    bob.step()
    check_changed(bob, "bob")
    bob.stop()


def test_given_up_it_is_destroyed(module: Module) -> None:
    assert "no pad waits" in refused(lambda: module.rekeying.abandon("ann"))
    module.bring()
    module.rekeying.stage("ann and ben")
    assert module.rekeying.abandon("ann")["staged"] is False
    assert not (module.home / NEXT_FILE).exists()
    assert (module.wiring.rekeying, module.engine.rekey_offer) == ("", b"")
    module.step(1e4)
    assert module.secret == pad(OLD)[:64]


def test_a_pad_that_was_taken_away_ends_it(module: Module) -> None:
    module.bring()
    module.rekeying.stage("ann and ben")
    (module.home / NEXT_FILE).unlink()
    module.engine.on_rekey(module.engine.rekey_offer)
    module.step()
    assert module.log.names[-1] == "rekey.failed"
    assert module.wiring.rekeying == ""
    assert module.secret == pad(OLD)[:64]


def test_a_pad_that_was_exchanged_after_its_approval_is_not_taken(module: Module) -> None:
    module.bring()
    module.rekeying.stage("ann and ben")
    module.bring(OTHER)
    module.engine.on_rekey(module.engine.rekey_offer)
    module.step()
    assert "not the pad that was approved" in str(module.log.entries[-1])
    assert module.secret == pad(OLD)[:64]


def test_a_restart_goes_on_waiting(module: Module) -> None:
    module.bring()
    module.rekeying.stage("ann and ben")
    module.stop()
    module.start()
    assert module.engine.rekey_offer
    module.engine.on_rekey(module.engine.rekey_offer)
    module.step()
    assert module.secret == pad(NEW)[:64]


def test_a_full_disk_is_told_once_and_tried_again(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    module.bring()
    module.rekeying.stage("ann and ben")
    module.engine.on_rekey(module.engine.rekey_offer)

    def full(*_a: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("qmodd.keys.pool._write", full)
        module.step()
        module.step()
    assert module.log.names.count("rekey.failed") == 1
    assert "No space" in module.wiring.rekeying
    assert "has begun" in refused(lambda: module.rekeying.abandon("ann"))
    module.engine.status.phase = Phase.OFFLINE
    module.step()
    assert module.secret == pad(NEW)[:64]
    assert module.wiring.rekeying == ""


def test_killed_anywhere_the_next_start_completes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in count():
        module = Module(tmp_path / str(step))
        module.fill()
        module.bring()
        module.rekeying.stage("ann and ben")
        module.engine.on_rekey(module.engine.rekey_offer)
        survived = False
        try:
            with killed_after(step, monkeypatch, (module.database,)):
                module.step()
                survived = True
        except Killed:
            pass
        module.stop()
        module.start()
        if not survived:
            assert module.pool.next_round == 3 or module.secret == pad(NEW)[:64]
            module.engine.on_rekey(module.engine.rekey_offer)
            asyncio.run(module.rekeying.resume())
            if module.rekeying.file.staged is not None:
                module.step()
            if not module.engine.ended:
                module.engine.ended = 1  # it was all but told
            check_changed(module)
        module.stop()
        if survived:
            break
    assert step > 15
