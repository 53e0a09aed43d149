"""Two-person approval: who may, how often, for how long, and over crashes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qmodd.approvals import MOST_PENDING, Approvals, NotApproved, instant, is_genuine
from qmodd.messages import Approval, Client
from qmodd.randomness import SeededRandomness
from tests.uplink_fakes import HandClock

ANN = Client("ann", "security", "a" * 32)
BEN = Client("ben", "security", "b" * 32)
ANN_AGAIN = Client("ann", "security", "c" * 32)
ANNS_KEY = Client("eve", "security", "a" * 32)
LIFETIME_S = 900.0


def make(directory: Path, clock: HandClock, seed: int = 1) -> Approvals:
    return Approvals(directory / "approvals.json", clock, "QM-A-0001", SeededRandomness(seed), LIFETIME_S)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def approvals(tmp_path: Path, clock: HandClock) -> Approvals:
    return make(tmp_path, clock)


def test_another_person_approves_once(approvals: Approvals) -> None:
    asked, new = approvals.ask("purge", {"before": "2026-01-01T00:00:00+00:00"}, ANN)
    assert new
    assert approvals.pending() == [asked]
    assert approvals.approve(asked.id, BEN) == asked
    assert approvals.pending() == []
    assert [a.approved_by for a in approvals.unfinished()] == ["ben"]
    with pytest.raises(NotApproved, match="approved by ben already") as e:
        approvals.approve(asked.id, BEN)
    assert e.value.code == "wrong_state"
    approvals.done(asked.id)
    approvals.done(asked.id)
    assert approvals.unfinished() == []
    with pytest.raises(NotApproved, match="no approval"):
        approvals.approve(asked.id, BEN)


@pytest.mark.parametrize("who", [ANN, ANN_AGAIN, ANNS_KEY])
def test_neither_the_same_name_nor_the_same_key_approves(approvals: Approvals, who: Client) -> None:
    asked, _ = approvals.ask("zeroise", {"why": "sold"}, ANN)
    with pytest.raises(NotApproved, match="another person") as e:
        approvals.approve(asked.id, who)
    assert e.value.code == "not_allowed"
    assert approvals.pending() == [asked]


def test_id_is_bound_to_what_is_approved(approvals: Approvals) -> None:
    asked, _ = approvals.ask("purge", {"before": "x"}, ANN)
    assert is_genuine(asked)
    for change in ({"command": "zeroise"}, {"arguments": {"before": "y"}}, {"by": "ben"}, {"module": "QM-B-0001"}):
        assert not is_genuine(asked.model_copy(update=change))
    assert is_genuine(Approval.model_validate_json(asked.payload()))


def test_asking_again_is_the_same_and_anothers_wish_is_to_be_approved(approvals: Approvals) -> None:
    asked, _ = approvals.ask("rekey", {}, ANN)
    assert approvals.ask("rekey", {}, ANN) == (asked, False)
    with pytest.raises(NotApproved, match=f"approve {asked.id} instead"):
        approvals.ask("rekey", {}, BEN)


def test_only_so_many_wait(approvals: Approvals) -> None:
    for n in range(MOST_PENDING):
        approvals.ask("purge", {"before": str(n)}, ANN)
    with pytest.raises(NotApproved, match="wait for approval") as e:
        approvals.ask("purge", {"before": "more"}, ANN)
    assert e.value.code == "busy"


def test_it_expires(approvals: Approvals, clock: HandClock) -> None:
    asked, _ = approvals.ask("rekey", {}, ANN)
    clock.t = LIFETIME_S - 1.0
    assert approvals.expire() == []
    clock.t = LIFETIME_S + 1.0
    with pytest.raises(NotApproved, match="expired at"):
        approvals.approve(asked.id, BEN)
    assert approvals.expire() == [asked]
    assert approvals.pending() == []


def test_a_clock_that_is_not_synchronised_does_not_make_it_live_longer(tmp_path: Path, clock: HandClock) -> None:
    make(tmp_path, clock).ask("rekey", {}, ANN)
    clock.t, clock.synchronised = -1e6, False  # a host that starts in the past
    again = make(tmp_path, clock)
    assert len(again.pending()) == 1
    clock.t += LIFETIME_S + 1.0
    assert len(again.expire()) == 1


def test_it_survives_a_restart(tmp_path: Path, clock: HandClock) -> None:
    asked, _ = make(tmp_path, clock).ask("zeroise", {"why": "sold"}, ANN)
    clock.t = LIFETIME_S / 2
    again = make(tmp_path, clock, seed=2)
    assert again.pending() == [asked]
    again.approve(asked.id, BEN)
    assert [a.approval for a in make(tmp_path, clock).unfinished()] == [asked]


@pytest.mark.parametrize("spoil", ["not json", "argument", "approved"])
def test_a_file_that_was_changed_is_set_aside(tmp_path: Path, clock: HandClock, spoil: str) -> None:
    make(tmp_path, clock).ask("purge", {"before": "x"}, ANN)
    path = tmp_path / "approvals.json"
    raw = json.loads(path.read_text())
    if spoil == "argument":
        raw["approvals"][0]["approval"]["arguments"]["before"] = "y"
    elif spoil == "approved":
        del raw["approvals"][0]["approved_by"]
    path.write_text("{" if spoil == "not json" else json.dumps(raw))
    again = make(tmp_path, clock)
    assert again.pending() == []
    assert "asked again" in again.damaged
    assert path.with_suffix(".damaged").exists()


def test_a_disk_that_does_not_take_it_changes_nothing(approvals: Approvals, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, _ = approvals.ask("rekey", {}, ANN)

    def full(*_a: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qmodd.approvals.write_whole", full)
    with pytest.raises(OSError, match="No space"):
        approvals.approve(asked.id, BEN)
    assert approvals.pending() == [asked]


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-01", "2026-01-01T00:00:00", 5, None, ["x"]])
def test_what_is_no_time_of_utc(text: object) -> None:
    assert instant(text) is None


def test_times_are_brought_to_utc() -> None:
    assert instant("2026-01-01T01:00:00+01:00") == instant("2026-01-01T00:00:00Z")


@dataclass
class _Kept:
    approval: Approval
    by: Client
    asked_s: float
    approved: bool = False


class Machine(RuleBasedStateMachine):
    """Against a model that keeps what was asked, by whom, when; restarts and clock faults between."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.clock = HandClock()
        self.model: dict[str, _Kept] = {}
        self.executed: list[str] = []
        self.lives = 1

    @initialize()
    def start(self) -> None:
        self.real = make(Path(self.directory.name), self.clock)

    def teardown(self) -> None:
        self.directory.cleanup()

    def over(self, kept: _Kept) -> bool:
        return self.clock.t > kept.asked_s + LIFETIME_S

    @rule(command=st.sampled_from(["purge", "rekey"]), n=st.integers(0, 2), who=st.sampled_from([ANN, BEN]))
    def ask(self, command: str, n: int, who: Client) -> None:
        try:
            approval, new = self.real.ask(command, {"n": n}, who)
        except NotApproved:
            assert any(k.approval.arguments == {"n": n} for k in self.model.values()) or len(self.model) >= MOST_PENDING
            return
        if new:
            assert approval.id not in self.model
            self.model[approval.id] = _Kept(approval, who, self.clock.t)
        assert self.model[approval.id].by is who

    @precondition(lambda self: self.model)
    @rule(data=st.data(), who=st.sampled_from([ANN, BEN, ANN_AGAIN, ANNS_KEY]))
    def approve(self, data: st.DataObject, who: Client) -> None:
        kept = data.draw(st.sampled_from(list(self.model.values())))
        allowed = who.name != kept.by.name and who.kid != kept.by.kid
        try:
            self.real.approve(kept.approval.id, who)
        except NotApproved:
            assert not allowed or kept.approved or self.over(kept)
            return
        assert allowed
        assert not kept.approved
        assert not self.over(kept)
        kept.approved = True
        self.executed.append(kept.approval.id)

    @rule(seconds=st.floats(0.0, 2 * LIFETIME_S))
    def wait(self, seconds: float) -> None:
        self.clock.t += seconds

    @rule()
    def expire(self) -> None:
        gone = {a.id for a in self.real.expire()}
        expected = {id for id, k in self.model.items() if not k.approved and self.over(k)}
        assert gone == expected
        for id in gone:
            del self.model[id]

    @precondition(lambda self: any(k.approved for k in self.model.values()))
    @rule()
    def done(self) -> None:
        id = next(i for i, k in self.model.items() if k.approved)
        self.real.done(id)
        del self.model[id]

    @rule()
    def restart(self) -> None:
        self.lives += 1
        self.real = make(Path(self.directory.name), self.clock, seed=self.lives)
        assert self.real.damaged == ""

    @invariant()
    def nothing_is_executed_twice(self) -> None:
        assert len(set(self.executed)) == len(self.executed)

    @invariant()
    def what_is_kept_is_what_was_asked(self) -> None:
        if not hasattr(self, "real"):
            return
        assert {a.id for a in self.real.pending()} == {i for i, k in self.model.items() if not k.approved}
        assert {a.approval.id for a in self.real.unfinished()} == {i for i, k in self.model.items() if k.approved}


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestMachine = Machine.TestCase
