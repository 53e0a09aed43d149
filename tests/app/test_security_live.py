"""A real pair whose keys are revoked, purged, re-keyed and destroyed by two people; then what a restart finds."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from qmodd.app.core import Core
from qmodd.app.safekeeping import StillViolated
from qmodd.app.zeroising import LATCH
from qmodd.config_files import missing_files
from qmodd.demo.compose import SERIALS
from qmodd.identity import ClientFiles
from qmodd.keys.pool import MINIMUM_BYTES
from qmodd.keys.rekey import NEXT_FILE
from qmodd.lifecycle import Activity
from qmodd.provision import SITE
from qmodd.soak import Run
from sim.loop import SimulatedLoop
from sim.scenario import Scenario
from tests.app.pair import Noc, events, keying, outputs, simulate, strike, until, until_blocks, until_keying

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
FIRST, SECOND = "security-1", "security-2"
SITES = ("alice", "bob")


class Person(Noc):
    """A client of the role security, and what it was answered."""

    def __init__(self, run: Run, name: str, replies: list[tuple[str, dict[str, Any]]]) -> None:
        super().__init__(run)
        self.files = ClientFiles.load(run.directory / SITE / name)
        self.name, self.replies = name, replies

    async def ask(self, site: str, command: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        body = self.body(site, command, arguments, client=self.name)
        before = len(self.replies)
        self.send(site, body.topic, self.signed(body))

        def answered() -> bool:
            return any(r["id"] == body.id and "ok" in r for _, r in self.replies[before:])

        await until(self.run, answered, 10.0, f"answer to {command}")
        return next(r for _, r in self.replies[before:] if r["id"] == body.id and "ok" in r)


class Story:
    def __init__(self, directory: Path) -> None:
        self.notes: dict[str, Any] = {}
        self.replies: list[tuple[str, dict[str, Any]]] = []
        self.retained: dict[tuple[str, str], bytes] = {}
        warm = Scenario.from_mapping({"start": {"alice_c": 29.9, "bob_c": 29.9}})
        self.run = simulate(directory, self._script, scenario=warm)

    def _published(self, module: str, suffix: str, payload: bytes) -> None:
        if suffix.startswith("reply/"):
            self.replies.append((module, json.loads(payload)))
        if suffix.startswith("approval/"):
            self.retained[module, suffix] = payload

    async def _script(self, run: Run) -> None:
        self.run, run.published = run, self._published
        self.ann, self.ben = (Person(run, name, self.replies) for name in (FIRST, SECOND))
        await until_keying(run)
        await until_blocks(run, 2)
        await self._revoke(run)
        await self._purge(run)
        await self._rekey(run)
        await self._zeroise(run)

    async def both(self, site: str, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Asked for by one, approved by the other; the second answer."""
        asked = await self.ann.ask(site, command, arguments)
        return await self.ben.ask(site, "approve", {"approval": asked["result"]["approval"]["id"]})

    async def _revoke(self, run: Run) -> None:
        store = run.sites["alice"].core.store
        block = store.block_ids()[0]
        self.notes["revoke"] = await self.ann.ask("alice", "revoke", {"block": str(block), "why": "drill"})
        self.notes["revoked"] = [store.state_of(i) for i in store.select(block=block)]
        self.notes["revoke nothing"] = await self.ann.ask("alice", "revoke", {})
        self.notes["revoke by an operator"] = await Person(run, "operator", self.replies).ask(
            "alice", "revoke", {"block": str(block)}
        )
        self.notes["audit"] = store.audit()

    async def _purge(self, run: Run) -> None:
        n, store = self.notes, run.sites["alice"].core.store
        later = (run.clock.utc() + timedelta(hours=1)).isoformat()
        n["purge later"] = await self.ann.ask("alice", "purge", {"before": later})
        before = {"before": run.clock.utc().isoformat()}
        n["purge asked"] = asked = await self.ann.ask("alice", "purge", before)
        id = asked["result"]["approval"]["id"]
        n["retained"] = self.retained.get((SERIALS["alice"], f"approval/{id}"))
        n["own"] = await self.ann.ask("alice", "approve", {"approval": id})
        n["listed"] = await Person(run, "operator", self.replies).ask("alice", "approvals")
        n["purge"] = await self.ben.ask("alice", "approve", {"approval": id})
        n["twice"] = await self.ben.ask("alice", "approve", {"approval": id})
        await asyncio.sleep(0.5)
        n["retained after"] = self.retained.get((SERIALS["alice"], f"approval/{id}"))
        asked = await self.ann.ask("alice", "zeroise", {"why": "a slip"})
        id = asked["result"]["approval"]["id"]
        n["rejected"] = await self.ben.ask("alice", "reject", {"approval": id, "why": "not today"})
        n["audit after"] = store.audit()

    async def _rekey(self, run: Run) -> None:
        n = self.notes
        n["rekey without a pad"] = await self.ann.ask("alice", "rekey")
        pad, other = (bytes([b]) + b"pad" * (MINIMUM_BYTES // 3 + 1) for b in (1, 2))
        self._bring(run, "alice", pad)
        n["staged"] = await self.both("alice", "rekey", {})
        await asyncio.sleep(90.0)
        n["alone"] = (keying(run), events(run, "alice", "rekey.done"), run.sites["alice"].core.life.why("activity"))
        self._bring(run, "bob", other)
        await self.both("bob", "rekey", {})
        await asyncio.sleep(5.0)
        n["differs"] = [e["why"] for e in events(run, "alice", "rekey.waiting")]
        n["abandoned"] = await self.ann.ask("bob", "rekey", {"abandon": True})
        self._bring(run, "bob", pad)
        await self.both("bob", "rekey", {})
        await until(run, lambda: all(events(run, s, "rekey.done") for s in SITES), 30.0, "re-keyed")
        commits = {s: run.sites[s].core.store.commits for s in SITES}
        await until_keying(run, 120.0)
        await until(run, lambda: all(run.sites[s].core.store.commits > commits[s] for s in SITES), 200.0, "a block")
        pools = [run.sites[s].core.journal.pool for s in SITES]
        n["pools"] = [(p.written, p.next_round, bytes(p.secret)) for p in pools]
        n["pad left"] = [(run.sites[s].core.config.module.state_dir / NEXT_FILE).exists() for s in SITES]
        n["differ"] = [e for s in SITES for e in events(run, s, "pool.differs")]
        n["secret of pad"] = pad[:64]
        n["again"] = self._bring(run, "alice", pad) or await self.ann.ask("alice", "rekey")

    def _bring(self, run: Run, site: str, pad: bytes) -> None:
        path = run.sites[site].core.config.module.state_dir / NEXT_FILE
        path.touch(0o600)
        path.write_bytes(pad)

    async def _zeroise(self, run: Run) -> None:
        n, core = self.notes, run.sites["alice"].core
        pair = core.config.pair
        secrets = {
            "kek": pair.key_encryption_key.read_bytes(),
            "pool": bytes(core.journal.pool.secret),
            "first pool": pair.pre_shared_key.read_bytes()[:64],
            "staged pad": (core.config.module.state_dir / NEXT_FILE).read_bytes()[:64],
            "identity": core.config.uplink.identity.read_bytes(),
        }
        n["zeroise"] = await self.both("alice", "zeroise", {"why": "sold"})
        await until(run, lambda: core.life.activity is Activity.SAFE, 5.0, "dark")
        await asyncio.sleep(20.0)
        n["latches"] = core.operator.latches()
        n["dark"] = outputs(run, "alice").dark
        n["alarms"] = [a.id for a in core.wiring.alarms.active()]
        n["account"] = (core.store.audit(), core.store.totals())
        n["material"] = core.database.rows(
            "SELECT (SELECT COUNT(*) FROM keys WHERE sealed IS NOT NULL), "
            "(SELECT COUNT(*) FROM blocks WHERE data_key IS NOT NULL), (SELECT COUNT(*) FROM journal)"
        )
        state_dir = core.config.module.state_dir
        files = [p for d in {state_dir, pair.key_encryption_key.parent} for p in d.rglob("*") if p.is_file()]
        n["left"] = [(what, p.name) for p in files for what, s in secrets.items() if s in p.read_bytes()]
        n["gone"] = [p.exists() for p in core.vault.erasure.files.values()]
        core.wiring.keys_wanted = True
        core.operator.release()
        await asyncio.sleep(30.0)
        n["still dark"] = (outputs(run, "alice").dark, core.life.why("activity"))
        n["bob"] = (run.sites["bob"].core.engine.status.phase, run.sites["bob"].core.life.activity)
        n["again zeroised"] = await self.both("alice", "zeroise", {"why": "twice"})


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    story = Story(tmp_path_factory.mktemp("security"))
    yield story
    story.run.close()


def code(reply: dict[str, Any]) -> str:
    return str(reply["error"]["code"])


def test_revoke(story: Story) -> None:
    n = story.notes
    assert n["revoke"]["ok"]
    assert n["revoke"]["result"]["revoked"] == len(n["revoked"])
    assert set(n["revoked"]) == {"revoked"}
    assert code(n["revoke nothing"]) == "bad_arguments"
    assert code(n["revoke by an operator"]) == "not_allowed"
    assert n["audit"] is None


def test_purge_needs_another_person(story: Story) -> None:
    n = story.notes
    assert code(n["purge later"]) == "bad_arguments"
    assert n["purge asked"]["result"]["done"] is False
    assert json.loads(n["retained"])["command"] == "purge"
    assert code(n["own"]) == "not_allowed"
    assert [a["command"] for a in n["listed"]["result"]["approvals"]] == ["purge"]
    assert n["purge"]["result"]["done"] is True
    assert code(n["twice"]) == "bad_arguments"
    assert n["retained after"] == b""
    assert n["rejected"]["result"] == {"approvals": []}
    assert n["audit after"] is None


def test_every_step_is_on_record(story: Story) -> None:
    told = [e["event"] for e in story.run.sites["alice"].core.events.entries]
    for name in ("wanted", "refused", "given", "done", "rejected"):
        assert f"approval.{name}" in told


def test_rekey_waits_for_both(story: Story) -> None:
    n = story.notes
    assert code(n["rekey without a pad"]) == "wrong_state"
    assert n["staged"]["result"]["staged"]
    assert n["alone"][:2] == (False, [])
    assert "has to be re-keyed with the same pad" in n["alone"][2]
    assert any("another pad" in why for why in n["differs"])
    assert n["abandoned"]["ok"]
    assert n["pools"][0] == n["pools"][1]
    assert n["pools"][0][2] == n["secret of pad"]
    assert n["pad left"] == [False, False]
    assert n["differ"] == []
    assert "never used again" in n["again"]["error"]["message"]


def test_zeroise_leaves_no_secret(story: Story) -> None:
    n = story.notes
    assert n["zeroise"]["result"]["kept"] == []
    assert n["left"] == []
    assert n["gone"] == [False, False, False, True, False]  # the pool's stand-in, known to nobody
    assert n["material"] == [(0, 0, 0)]


def test_zeroised_module_is_dark_and_says_so(story: Story) -> None:
    n = story.notes
    assert LATCH in n["latches"]
    assert n["dark"]
    assert "zeroised" in n["alarms"]
    assert n["still dark"][0]
    assert "zeroised by security-1 and security-2: sold" in n["still dark"][1]
    assert n["bob"][1] is not Activity.KEYING
    assert n["again zeroised"]["result"]["why"] == "sold"


def test_account_survives(story: Story) -> None:
    audit, totals = story.notes["account"]
    assert audit is None
    assert totals["created"] > 0
    assert totals["distilled"] == totals["delivered"] == 0


def test_a_restart_starts_dark_and_says_why(story: Story, tmp_path: Path) -> None:
    """On a copy of what lies on disk, by the configuration that core is started with."""
    old = story.run.sites["alice"].core
    shutil.copytree(old.config.module.state_dir, tmp_path / "state")
    module = old.config.module.model_copy(update={"state_dir": tmp_path / "state"})
    config = old.config.model_copy(update={"module": module})
    assert missing_files(config, tmp_path / "alice.toml", "core") == []

    async def start() -> tuple[str, list[str]]:
        core = Core(config, old.injected)
        try:
            await core.security.resume()
            with pytest.raises(StillViolated, match="to be brought anew: key-encryption key"):
                await core.operator.clear_latch(LATCH, "ann")
            return core.operator.dark_latch(), [str(e["event"]) for e in core.events.entries]
        finally:
            await core.module.close()
            core.close()

    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        latched, told = runner.run(start())
    assert "zeroised by security-1 and security-2: sold" in latched
    assert "zeroise.waiting" in told


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, dict[str, Any]]]:
    """With the contact set to zeroise: bob is opened in service, alice while she is locked; a knock before is none."""
    notes: dict[str, Any] = {}

    async def script(run: Run) -> None:
        alice, bob = (run.sites[s].core for s in SITES)
        await until(run, lambda: bob.operator.in_service or bob.life.activity is not Activity.BOOT, 60.0, "bob is up")
        Noc(run).do("alice", "lock", {"why": "stored"})
        await until(run, lambda: alice.life.activity is Activity.SAFE, 10.0, "alice is locked")
        strike(run, "open", "alice.cover", 0.02)
        await asyncio.sleep(5.0)
        notes["after a knock"] = alice.operator.latches(), events(run, "alice", "tamper.struck")
        for site, core in zip(SITES, (alice, bob), strict=True):
            begin = run.loop.time()
            strike(run, "open", f"{site}.cover", 30.0)
            gone = core.config.pair.key_encryption_key
            await until(run, lambda gone=gone: not gone.exists(), 20.0, f"{site} is zeroised", 0.01)  # type: ignore[misc]
            notes[f"{site} after"] = run.loop.time() - begin
            await until(run, lambda site=site: bool(events(run, site, "zeroise.done")), 5.0, "all of it")  # type: ignore[misc]
            notes[f"{site} kept"] = core.security.zeroising.told()["kept"]
        await asyncio.sleep(40.0)
        notes["latches"] = {s: sorted(run.sites[s].core.operator.latches()) for s in SITES}
        notes["dark"] = [outputs(run, s).dark for s in SITES]

    warm = Scenario.from_mapping({"start": {"alice_c": 29.9, "bob_c": 29.9}})
    run = simulate(tmp_path_factory.mktemp("struck"), script, scenario=warm, settings={"tamper": "zeroise"})
    yield run, notes
    run.close()


def test_a_knock_is_no_tampering(struck: tuple[Run, dict[str, Any]]) -> None:
    assert struck[1]["after a knock"] == ({}, [])


def test_an_opened_cover_zeroises_in_service_and_while_locked(struck: tuple[Run, dict[str, Any]]) -> None:
    run, notes = struck
    assert notes["alice after"] < 3.0
    assert notes["bob after"] < 3.0
    assert (notes["alice kept"], notes["bob kept"]) == ([], [])
    assert notes["latches"] == {site: ["cover-open", LATCH] for site in SITES}
    assert notes["dark"] == [True, True]
    for site in SITES:
        (begun,) = events(run, site, "zeroise.begun")
        assert (begun["by"], begun["why"]) == ("tamper contact", "the cover was opened")
        assert "zeroised" in [str(e["alarm"]) for e in events(run, site, "alarm.raised")]
