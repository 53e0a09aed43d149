"""Leases and sweeps on fake outputs: who may, for how long, within which limits, and what it comes back to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from drivers.errors import BusFault, OutOfRange
from drivers.quantity import Limits, Quantity
from qmodd.app.leases import NOBODY, Leases, within
from qmodd.app.outputs import Output, Readings, expand
from qmodd.app.sweep import SweepPlan, sweep
from qmodd.requests import Refusal


@dataclass
class Hands:
    """A clock that is set, and three outputs that remember what was written."""

    now_s: float = 0.0
    written: list[tuple[str, float]] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    broken: bool = False

    def __post_init__(self) -> None:
        self.quantities = {
            "heater.phase": Quantity("heaters.phase", Limits("A", 0.0, 0.033, 0.0)),
            "heater.spare": Quantity("heaters.spare", Limits("A", 0.0, 0.033, 0.0)),
            "tec.target": Quantity("tec.target", Limits("C", 10.0, 60.0, 25.0)),
        }
        self.quantities["heater.phase"].wrote(0.012, 0.0)
        outputs = {n: self._output(n, 0.5 if n == "tec.target" else None) for n in self.quantities}
        self.leases = Leases(outputs, self, lambda name, fields: self.events.append((name, dict(fields))))  # type: ignore[arg-type]

    def monotonic(self) -> float:
        return self.now_s

    def _output(self, name: str, ramp: float | None) -> Output:
        quantity = self.quantities[name]

        async def write(value: float) -> None:
            if self.broken:
                raise BusFault(f"{name}: no answer")
            quantity.wrote(quantity.check(value), 0.0)
            self.written.append((name, value))

        return Output(name, name.partition(".")[0], lambda: quantity, write, ramp)

    def readings(self) -> Readings:
        async def adc() -> dict[str, float]:
            return {"pa0": 10.0 * self.quantities["heater.phase"].value, "pa1": 1.0}

        return Readings({"adc": adc}, {"adc.pa0": "V", "adc.pa1": "V"})


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    real = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda _s: real(0))


def test_a_lease_takes_the_output_from_its_loop(hands: Hands) -> None:
    leases, heard = hands.leases, []
    leases.listeners.append(lambda name, leased: heard.append((name, leased)))
    leases.own("heater.phase", "loop interferometer phase")
    assert leases.free("heater.phase")
    assert leases.owner("heater.phase") == "loop interferometer phase"
    (lease,) = leases.take("heater.phase", "ada", 60.0, 10.0)
    assert not leases.free("heater.phase")
    assert leases.held("heater.phase") == lease == leases.any()
    assert leases.owner("heater.phase") == "lease: ada"
    assert {"output": "heater.phase", "owner": "lease: ada"} in leases.owners()
    assert {"output": "tec.target", "owner": NOBODY} in leases.owners()
    assert leases.keys_held() == "output heater.phase is leased by ada"
    assert heard == [("heater.phase", True)]
    assert hands.written == []
    assert leases.described([lease])[0] | {"ends_in_s": 0} == {
        "output": "heater.phase",
        "client": "ada",
        "unit": "A",
        "value": 0.012,
        "low": 0.0,
        "high": 0.033,
        "ends_in_s": 0,
        "heartbeat_s": 10.0,
        "keys_stop": True,
    }


def test_keys_go_on_where_they_do_not_rest_on_it(hands: Hands) -> None:
    hands.leases.take("heater.spare", "ada", 60.0, 10.0)
    assert hands.leases.keys_held() is None


async def test_given_back_it_is_where_it_was(hands: Hands) -> None:
    leases, heard = hands.leases, []
    (lease,) = leases.take("heater.phase", "ada", 60.0, 10.0)
    await leases.write(lease, 0.02)
    leases.listeners.append(lambda name, leased: heard.append((leased, hands.quantities[name].value)))
    with pytest.raises(Refusal, match=r"bob has not leased heater\.phase") as e:
        await leases.give_back("heater.phase", "bob")
    assert e.value.code == "not_leased"
    assert await leases.give_back("heater.phase", "ada") == ("heater.phase",)
    assert heard == [(False, 0.012)]
    assert leases.any() is None
    with pytest.raises(Refusal, match="has ended; nothing more was written"):
        await leases.write(lease, 0.03)
    assert hands.written == [("heater.phase", 0.02), ("heater.phase", 0.012)]


def test_one_holder_at_a_time_all_or_nothing(hands: Hands) -> None:
    leases = hands.leases
    leases.take("heater.phase", "ada", 60.0, 10.0)
    with pytest.raises(Refusal, match=r"heater\.phase is leased by ada; it ends in 60 s") as e:
        leases.take("heaters", "bob", 60.0, 10.0)
    assert e.value.code == "leased"
    assert leases.free("heater.spare")
    assert len(leases.take("heaters", "ada", 60.0, 10.0)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("heater.nose", "ada", 60.0, 10.0), "no output 'heater.nose'; there are heater.phase"),
        (("heater.phase", "ada", 0.0, 10.0), "seconds = 0 s: 1 to 3600 s is allowed; nothing was changed"),
        (("heater.phase", "ada", 1e9, 10.0), "seconds = 1e"),
        (("heater.phase", "ada", float("nan"), 10.0), "seconds = nan s"),
        (("heater.phase", "ada", 60.0, 1.0), "heartbeat_s = 1 s: 2 to 120 s is allowed"),
    ],
)
def test_what_is_refused(hands: Hands, arguments: tuple[str, str, float, float], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        hands.leases.take(*arguments)
    assert hands.leases.any() is None


@pytest.mark.parametrize(
    ("renewed_at", "silent_at", "why"),
    [((9.0, 18.0, 27.0), 60.5, "its time is over"), ((9.0,), 19.5, "ada has not renewed it for 10 s")],
)
async def test_it_ends_by_itself(hands: Hands, renewed_at: tuple[float, ...], silent_at: float, why: str) -> None:
    leases = hands.leases
    (lease,) = leases.take("heater.phase", "ada", 60.0, 10.0)
    await leases.write(lease, 0.02)
    for at in renewed_at:
        hands.now_s = at
        leases.take("heater.phase", "ada", 60.0 - at, 10.0)
        await leases.step(at)
        assert not leases.free("heater.phase")
    if why == "its time is over":
        hands.now_s = 59.0
        leases.renew(lease)
    hands.now_s = silent_at
    await leases.step(silent_at)
    assert leases.free("heater.phase")
    assert hands.quantities["heater.phase"].value == 0.012
    assert hands.events[-1] == ("lease.ended", {"output": "heater.phase", "client": "ada", "why": why})


async def test_safe_state_ends_it_without_a_write(hands: Hands) -> None:
    leases = hands.leases
    (lease,) = leases.take("heater.phase", "ada", 60.0, 10.0)
    leases.end_all("interlock open")
    assert leases.any() is None
    assert hands.written == []
    assert hands.events[-1][1]["why"] == "interlock open"
    leases.renew(lease)
    assert leases.free("heater.phase")


async def test_an_output_that_does_not_go_back_is_told(hands: Hands) -> None:
    leases = hands.leases
    leases.take("heater.phase", "ada", 60.0, 10.0)
    hands.broken = True
    await leases.give_back("heater.phase", "ada")
    assert [name for name, _ in hands.events] == ["lease.taken", "lease.not_restored", "lease.ended"]
    assert leases.free("heater.phase")


async def test_a_slow_output_is_moved_by_its_ramp(hands: Hands) -> None:
    (lease,) = hands.leases.take("tec.target", "ada", 60.0, 10.0)
    await hands.leases.write(lease, 26.0)
    assert [v for _, v in hands.written] == [25.25, 25.5, 25.75, 26.0]
    with pytest.raises(OutOfRange, match="61 C is above the upper limit 60 C"):
        hands.quantities["tec.target"].check(61.0)


def test_names_stand_for_outputs(hands: Hands) -> None:
    outputs = hands.leases.outputs
    assert expand("tec", outputs) == ("tec.target",)
    assert expand("heaters", outputs) == ("heater.phase", "heater.spare")
    with pytest.raises(LookupError, match=r"no output 'bias.voa'; there are"):
        expand("attenuator", outputs)


# sweeps


def plan(**changes: Any) -> SweepPlan:
    return SweepPlan(
        **{
            "output": "heater.phase",
            "start": 0.0,
            "stop": 0.02,
            "points": 5,
            "settle_s": 0.01,
            "read": ("adc.pa1", "adc.pa0"),
            **changes,
        }
    )


async def test_who_waits_for_a_ramp_hears_how_far_it_is(hands: Hands) -> None:
    (lease,) = hands.leases.take("tec.target", "ada", 600.0, 30.0)
    before = lease.before
    await hands.leases.write(lease, before + 5.0)
    told: list[tuple[float, str]] = []
    await hands.leases.give_back("tec.target", "ada", lambda fraction, text: told.append((fraction, text)))
    assert hands.quantities["tec.target"].value == before
    assert [f for f, _ in told] == sorted(f for f, _ in told)
    assert len(told) >= 4
    assert all(0.0 < f < 1.0 and text.startswith("tec.target ") for f, text in told)


async def test_a_sweep_gives_raw_data_and_goes_back(hands: Hands) -> None:
    leases, told = hands.leases, []
    (lease,) = leases.take("heater.phase", "ada", 60.0, 10.0)
    plan().check(leases, hands.readings())
    found = await sweep(plan(), lease, leases, hands.readings(), lambda f, text: told.append((f, text)))
    assert found["columns"] == [
        {"name": "heater.phase", "unit": "A"},
        {"name": "adc.pa1", "unit": "V"},
        {"name": "adc.pa0", "unit": "V"},
    ]
    assert found["rows"][2] == pytest.approx([0.01, 1.0, 0.1])
    assert len(found["rows"]) == 5
    assert found["value"] == hands.quantities["heater.phase"].value == 0.012
    assert told[-1] == (1.0, "heater.phase 0.02 A")
    stayed = await sweep(plan(stay=True), lease, leases, hands.readings(), lambda _f, _t: None)
    assert stayed["value"] == 0.02


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop": 0.05}, "to = 0.05 A: heater.phase may be 0 to 0.033 A; nothing was changed"),
        ({"start": -0.001}, "from = -0.001 A: heater.phase may be 0 to 0.033 A"),
        ({"stop": float("nan")}, "to = nan A"),
        ({"points": 0}, "points = 0 points: 1 to 1000 points is allowed"),
        ({"points": 100_000}, "points = 100000"),
        ({"settle_s": -1.0}, "settle = -1 s: 0 to 10 s is allowed"),
        ({"points": 1000, "settle_s": 1.0}, "points x settle = 1000 s: 0 to 600 s is allowed"),
        ({"points": 1000, "read": ("adc.pa0",) * 9}, r"points x \(1 \+ read\) = 10000 numbers: 1 to 8000 numbers"),
        ({"read": ("adc.nose",)}, "read: no reading 'adc.nose'; there are adc.pa0, adc.pa1"),
    ],
)
def test_a_sweep_is_checked_before_it_begins(hands: Hands, changes: dict[str, Any], message: str) -> None:
    hands.leases.take("heater.phase", "ada", 60.0, 10.0)
    with pytest.raises(Refusal, match=message):
        plan(**changes).check(hands.leases, hands.readings())
    assert hands.written == []


async def test_a_sweep_stops_where_its_lease_ends(hands: Hands) -> None:
    leases = hands.leases
    (lease,) = leases.take("heater.phase", "ada", 60.0, 10.0)

    def safe_at_the_second(fraction: float, _text: str) -> None:
        if fraction == 0.4:
            leases.end_all("safe state by command")

    with pytest.raises(Refusal, match=r"the lease of heater\.phase has ended"):
        await sweep(plan(), lease, leases, hands.readings(), safe_at_the_second)
    assert [v for _, v in hands.written] == [0.0, 0.005]


def test_limits_are_told_for_programs() -> None:
    with pytest.raises(Refusal) as e:
        within("points", 0, 1, 9, "points")
    limit = e.value.limit
    assert limit is not None
    assert (limit.output, limit.value, limit.low, limit.high, limit.unit) == ("points", 0, 1, 9, "points")


class Rooms(RuleBasedStateMachine):
    """Whatever happens in whatever order: one holder an output, and what is free stands where its loop left it."""

    def __init__(self) -> None:
        super().__init__()
        self.hands = Hands()
        self.left = {name: q.value for name, q in self.hands.quantities.items()}

    @rule(name=st.sampled_from(["heater.phase", "heater.spare", "heaters"]), who=st.sampled_from(["ada", "bob"]))
    def take(self, name: str, who: str) -> None:
        self._try(lambda: self.hands.leases.take(name, who, 20.0, 5.0))

    @rule(name=st.sampled_from(["heater.phase", "heater.spare"]), to=st.floats(0.0, 0.033))
    def write(self, name: str, to: float) -> None:
        if (lease := self.hands.leases.held(name)) is not None:
            asyncio.run(self.hands.leases.write(lease, to))

    @rule(name=st.sampled_from(["heater.phase", "heaters"]), who=st.sampled_from(["ada", "bob"]))
    def give_back(self, name: str, who: str) -> None:
        self._try(lambda: asyncio.run(self.hands.leases.give_back(name, who)))

    @rule(seconds=st.floats(0.1, 8.0))
    def time_passes(self, seconds: float) -> None:
        self.hands.now_s += seconds
        asyncio.run(self.hands.leases.step(self.hands.now_s))

    @invariant()
    def what_is_free_is_where_it_was(self) -> None:
        leases = self.hands.leases
        for name, value in self.left.items():
            if leases.free(name):
                assert self.hands.quantities[name].value == value
                assert leases.owner(name) == NOBODY
            else:
                lease = leases.held(name)
                assert lease is not None
                assert lease.before == value

    def _try(self, work: Callable[[], object]) -> None:
        before = {n: self.hands.leases.held(n) for n in self.left}
        try:
            work()
        except Refusal:
            assert before == {n: self.hands.leases.held(n) for n in self.left}


TestRooms = Rooms.TestCase
TestRooms.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
