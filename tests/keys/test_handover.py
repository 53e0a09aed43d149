"""Keys handed over at both sites: usable at both or at none, whatever is lost, repeated, killed or given up."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from qmodd.keys.handover_ledger import Level
from qmodd.keys.protocol import KeysAt, KeysHeard, decode
from qmodd.keys.records import KeyState, key_id
from tests.keys.sites import LIFETIME_S, Dead, Site, Two
from tests.uplink_fakes import HandClock


@pytest.fixture
def two(ram_path: Path) -> Iterator[Two]:
    made = Two(ram_path)
    yield made
    made.close()


def test_a_key_is_usable_when_both_recipients_have_it(two: Two) -> None:
    two.block(6)
    two.a.work()
    acks = [two.a.kms.handle(*m) for m in two.a.published()]
    assert len(acks) == 2
    two.a.work(acks)
    assert [k for k, _ in two.a.published()] == []
    assert two.a.usable() == {}
    assert two.a.store.ledger.waiting_for_far() == 6
    two.settle()
    assert two.check() == {"usable": 6}
    where = two.a.store.provenance(two.a.store.key_ids()[5])
    assert where is not None
    assert (where["state"], where["here"], where["far"], where["notice"]) == ("acknowledged", "has", "has", "usable")
    assert where["batch"]
    assert where["block"]["uuid"] in map(str, two.blocks)
    assert two.a.store.counts()["recipients"]["kms"]["usable"] == 6


def test_a_key_given_up_by_command_goes_everywhere(two: Two) -> None:
    block = two.block(4)
    two.settle()
    ids = [key_id(block, n) for n in (0, 2)]
    found = two.b.handover._revoke((*ids, key_id(block, 99)), "lost lap-top")
    assert found.revoked == tuple(ids)
    assert found.unknown == (key_id(block, 99),)
    assert two.b.handover.revoking() == 2
    two.b.work()
    kind, notice = two.b.published()[0]
    assert kind == "revoke"
    assert b"lost lap-top" in notice
    two.settle()
    assert two.check() == {"usable": 2, "gone": 2}
    assert two.a.told("key.revocation.complete") == two.b.told("key.revocation.complete") == 2
    where = two.a.store.provenance(ids[0])
    assert where is not None
    assert where["why"] == "given up at the far site"


def test_keys_that_were_never_sealed_are_given_up_without_a_notice(two: Two) -> None:
    two.block(3)
    two.a.handover._revoke(tuple(two.a.store.key_ids()), "not needed")
    two.settle()
    assert two.check() == {"gone": 3}
    assert two.a.states() == {}


def test_a_recipient_that_refuses_ends_the_key_at_both_sites(two: Two) -> None:
    two.block(4)
    two.a.kms.clock = HandClock(400 * 86_400.0)  # beyond what the envelopes say
    two.a.work()
    two.a.work([two.a.kms.handle(*m) for m in two.a.published()])
    assert two.a.store.totals()[KeyState.REVOKED] == 4
    assert ("key.refused", {"recipient": "kms", "keys": 4, "why": "expired"}) in two.a.events
    two.settle()
    assert two.check() == {"gone": 4}


def test_lifetimes_end_keys_that_nobody_has_at_both_sites(two: Two) -> None:
    two.block(4)
    two.a.work()
    two.a.work([two.a.kms.handle(*m) for m in two.a.published()])  # A's recipient has them, B's has not
    two.clock.t = LIFETIME_S + 20
    two.settle()
    assert two.check() == {"gone": 4}
    assert two.b.store.totals()[KeyState.EXPIRED] == 4
    assert two.a.store.totals()[KeyState.REVOKED] == 4
    two.clock.t += 8 * 86_400
    for site in two.sites:
        site.work()
        assert site.store.totals()[KeyState.PURGED] == 4
        assert site.store.audit() is None


def test_a_clock_that_is_not_synchronised_judges_no_lifetime(two: Two) -> None:
    two.block(2)
    two.clock.synchronised = False
    two.clock.t = 100 * 86_400.0
    two.a.work()
    assert two.a.store.totals()[KeyState.EXPIRED] == 0


def test_words_about_a_block_in_doubt_wait_for_its_verdict(two: Two) -> None:
    block = two.block(2, commit_far=False)
    two.a.work()
    two.a.work([two.a.kms.handle(*m) for m in two.a.published()])
    two.a.tell()
    said, two.a.said = two.a.said, []
    two.b.work(heard=said)
    assert two.b.said == []
    two.settle()
    assert two.check() == {"usable": 2}
    assert two.b.store.block(block) is not None


def test_a_block_that_the_far_site_does_not_know_is_given_up(two: Two) -> None:
    two.block(2, commit_far=False)
    two.b.journal.abort(two.b.journal.in_doubt()[0].uuid)
    two.a.work()
    two.a.work([two.a.kms.handle(*m) for m in two.a.published()])
    two.a.tell()
    said, two.a.said = two.a.said, []
    two.b.work(heard=said)
    answers = [decode(m) for m in two.b.said]
    assert [type(m) for m in answers] == [KeysHeard, KeysAt]
    two.a.work(heard=two.b.said)
    assert two.a.store.totals()[KeyState.REVOKED] == 2
    assert two.a.handover.revoking() == 2  # its recipient has not said so yet


def test_a_recipient_that_lost_its_store_makes_no_key_usable_at_one_site(two: Two, ram_path: Path) -> None:
    two.block(2)
    two.a.work()
    two.a.work([two.a.kms.handle(*m) for m in two.a.published()])
    two.a.kms.close()
    shutil.rmtree(ram_path / "A" / "kms")
    two.a.kms = type(two.a.kms)(ram_path / "A" / "kms", two.a.kms.identity, two.a.kms.senders, two.clock)
    two.settle()
    assert two.check() == {"gone": 2}
    assert any("unknown" in f.get("why", "") for n, f in two.a.events if n == "key.revoked")


def test_a_key_given_up_between_sealing_and_its_mark_is_revoked_at_the_recipient(two: Two) -> None:
    two.block(1)
    name = two.a.store.key_ids()[0]
    real = two.a.store.mark_delivered

    def late(ids, batch=None):  # type: ignore[no-untyped-def]
        two.a.store.revoke(ids, "lost by the far module")
        real(ids, batch)

    two.a.store.mark_delivered = late  # type: ignore[method-assign]
    two.a.work()
    two.a.store.mark_delivered = real  # type: ignore[method-assign]
    two.settle()
    assert two.check() == {"gone": 1}
    assert two.a.states() == {str(name): "revoked"}


def test_words_that_cannot_be_change_nothing(two: Two) -> None:
    block = two.block(2)
    for numbers in ((0,), (1, 0), (0, 3), (0, 1, 0, 2)):
        step = two.a.handover._work([], [KeysAt(block.bytes, int(Level.GONE), numbers)])
        assert "ranges" in step.wrong
    assert "malformed" in two.a.handover._work([], [KeysAt(b"x", 1, (0, 1))]).wrong
    assert "malformed" in two.a.handover._work([], [KeysAt(block.bytes, 9, (0, 1))]).wrong
    assert two.a.store.totals()[KeyState.REVOKED] == 0
    # A far side that claims to have heard more than was said hides nothing from itself.
    two.a.handover._work([], [KeysHeard(block.bytes, int(Level.CLEAR), (0, 2))])
    two.a.outbox.release()
    two.settle()
    assert two.check() == {"usable": 2}


def test_the_account_is_audited_at_start_and_hourly(two: Two) -> None:
    two.a.work()
    with two.a.database.transaction() as db:
        db.execute("INSERT INTO totals (state, n) VALUES ('created', 3) ON CONFLICT (state) DO UPDATE SET n = 3")
    two.a.work()
    assert two.a.handover.account is None
    two.clock.t += 3601
    two.a.work()
    assert two.a.handover.account == "3 keys created but 0 accounted for"
    assert two.a.events == [("key.account", {"why": "3 keys created but 0 accounted for"})]
    with two.a.database.transaction() as db:
        db.execute("DELETE FROM totals")


class Handing(RuleBasedStateMachine):
    """Any order of work, loss, repetition, death and giving up; then everything arrives, and it has to be right."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.two = Two(self.directory)
        self.kept: list[tuple[Site, bytes]] = []

    def teardown(self) -> None:
        if hasattr(self, "two"):
            self.two.settle()
            self.two.check()
            self.two.close()
            shutil.rmtree(self.directory)

    def site(self, which: bool) -> Site:
        return self.two.sites[which]

    @rule(keys=st.integers(1, 6), far=st.booleans())
    def block(self, keys: int, far: bool) -> None:
        if len(self.two.blocks) < 5:
            self.two.block(keys, commit_far=far)

    @rule()
    def verdict(self) -> None:
        self.two.commit_far()

    @rule(which=st.booleans(), dies=st.booleans())
    def work(self, which: bool, dies: bool) -> None:
        site = self.site(which)
        site.work(die=dies)
        if dies:
            self.crash(which)

    @rule(
        which=st.booleans(),
        commits=st.integers(1, 12),
        what=st.sampled_from(["work", "answer", "words", "give up", "expire"]),
    )
    def killed_between_commits(self, which: bool, commits: int, what: str) -> None:
        site, other = self.site(which), self.site(not which)
        there = site.published()
        acks = [site.kms.handle(*m) for m in there] if what == "answer" else []
        heard: list[bytes] = []
        if what == "words":
            other.tell()
            heard, other.said = other.said, []
        if what == "expire" and self.two.clock.t < 4 * 86_400:
            self.two.clock.t += LIFETIME_S / 2
        site.fuse.left = commits
        try:
            if what == "give up":
                site.handover._revoke(tuple(site.store.key_ids()[::3]), "asked for")
            while site.work(acks, heard):
                acks, heard = [], []
        except Dead:
            self.crash(which)
        site.fuse.left = None

    @rule(which=st.booleans())
    def crash(self, which: bool) -> None:
        site = self.site(which)
        site.die()
        self.kept = [(s, a) for s, a in self.kept if s is not site]
        site.boot()

    @rule(which=st.booleans(), lost=st.booleans(), keep=st.booleans(), dies=st.booleans(), last=st.booleans())
    def recipient(self, which: bool, lost: bool, keep: bool, dies: bool, last: bool) -> None:
        site = self.site(which)
        there = site.published()
        if there:
            ack = site.kms.handle(*there[-1 if last else 0])
            if keep:
                self.kept.append((site, ack))
            if not lost:
                site.work([ack], die=dies)
                if dies:
                    self.crash(which)

    @rule(n=st.integers(0, 20))
    def late_answer(self, n: int) -> None:
        if self.kept:
            site, ack = self.kept[n % len(self.kept)]
            site.work([ack])

    @rule(which=st.booleans(), lose=st.booleans(), twice=st.booleans(), turned=st.booleans(), dies=st.booleans())
    def words(self, which: bool, lose: bool, twice: bool, turned: bool, dies: bool) -> None:
        site = self.site(which)
        site.tell()
        said, site.said = site.said, []
        if lose:
            return
        heard = said[::-1] if turned else said
        other = self.two.other(site)
        other.work(heard=heard * (1 + twice), die=dies)
        if dies:
            self.crash(not which)

    @rule(which=st.booleans(), n=st.integers(0, 30))
    def give_up(self, which: bool, n: int) -> None:
        site = self.site(which)
        ids = site.store.key_ids()
        if ids:
            site.handover._revoke((ids[n % len(ids)],), "asked for")

    @rule(seconds=st.sampled_from([60.0, LIFETIME_S / 2]))
    def later(self, seconds: float) -> None:
        if self.two.clock.t + seconds < 5 * 86_400:
            self.two.clock.t += seconds


TestHanding = Handing.TestCase
TestHanding.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


WORDS = st.builds(
    st.sampled_from([KeysAt, KeysHeard]).flatmap,
    st.just(
        lambda kind: st.builds(
            kind,
            st.sampled_from([UUID(int=1, version=4).bytes, UUID(int=77).bytes, b"", b"x" * 17]),
            st.integers(0, 5),
            st.lists(st.integers(0, 9), max_size=6).map(tuple),
        )
    ),
).flatmap(lambda words: words)


@given(st.lists(st.lists(WORDS, max_size=4), max_size=6))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_the_far_module_says_keys_are_conserved(said: list[list[KeysAt | KeysHeard]]) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        two = Two(Path(name))
        two.block(5)
        for words in said:
            before = two.a.store.counts()
            step = two.a.handover._work([], list(words))
            two.a.outbox.release(step.released)
            if step.wrong:
                assert two.a.store.counts()["states"]["revoked"] == before["states"]["revoked"]
            assert two.a.store.audit() is None
            assert all(isinstance(a, KeysAt | KeysHeard) for a in step.answers)
        two.close()
