"""Bad input ends in a named diagnosis: which part, which reading, which limit, instead of a wrong calibration.

One cold start in which one part after the other is broken at boot, and one service in which they break: at each module
in turn, both modules side by side where the far one is not needed. A part is mended once it has been named, so that
every case also shows that the module goes on by itself.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import pytest

from calibration.names import HEATERS
from calibration.procedures import alice_graph, bob_graph
from qmodd.control.phase_types import Stage
from qmodd.lifecycle import Activity
from qmodd.soak import Run
from sim.faults import Fault
from sim.scenario import Scenario
from tests.app.pair import Outputs, events, outputs, simulate, until, until_keying
from tests.docs.pages import DOCS, rows, sections

START = Scenario.from_mapping({"start": {"alice_c": 30.0, "bob_c": 30.0}})
GRAPHS = {"alice": alice_graph(), "bob": bob_graph()}
NUMBER = r"[-+]?\d[\d.]*(?:e-?\d+)?"
# Cold: warm-up, identification of the plant and everything before the procedure that names it.
AT_BOOT_S, IN_SERVICE_S = 60.0, 30.0
DIODES = {"pa0": 0, "pa1": 1, "pa3": 3, "pa4": 4, "pa6": 6}
DETECTORS = ("dz", "dx0", "dx1")


@dataclass(frozen=True)
class Case:
    """`says` is a regular expression of part, reading with unit, and limit; `spoils`: the first calibration that rests
    on the part, "" where none does."""

    side: str
    kind: str
    target: str
    says: str
    spoils: str = ""
    value: float | None = None
    when: str = "boot"

    def __str__(self) -> str:
        return f"{self.when} {self.kind} {self.target}"


def heater_cases(side: str, in_service: bool) -> list[Case]:
    out = []
    for n, name in enumerate(HEATERS[side]):
        at = f"{NUMBER} V at {NUMBER} mA, {NUMBER} ohm"
        opened = f"heater '{name}' is open: {at}; 130 ohm is the limit"
        if in_service:
            opened += rf"|heater {name}: open circuit: its flag is set at {NUMBER} mA; none may be"
        shorted = f"heater '{name}' is shorted: {at}; 60 ohm is the limit"
        railed = rf"heater '{name}': its current source is stuck: {NUMBER} V with 0 mA set, 0\.2 V is the limit"
        for kind, says in (("open", opened), ("short", shorted), ("railed", railed)):
            out.append(Case(side, kind, f"{side}.heater.{n}", says, "heater_iv"))
    return out


def reversed_case(side: str) -> Case:
    return Case(
        side,
        "reversed",
        f"{side}.tec",
        rf"CHECK POLARITY: {NUMBER} A should (warm|cool) the object, and it moved by {NUMBER} K within {NUMBER} s; "
        r"0\.05 K the wrong way is the limit: Peltier element reversed",
        "tec_plant",
    )


def dead_at_boot(name: str, procedure: str, witness: str) -> Case:
    seen = (
        rf"photodiode {name} is dead or its path is dark: {NUMBER} A at the best of \d+ settings, 3e-09 A is the least"
    )
    return Case("alice", "dead", f"alice.photodiode.{DIODES[name]}", f"{seen}, although {witness} sees", procedure)


LASER_DARK = Case(
    "alice",
    "dead",
    "alice.laser",
    rf"laser: no emission: the laser reads {NUMBER} dBm with 13\.0 dBm set and on .*1e-08 A is the least",
    "laser",
)
BOOT = {
    "alice": (
        reversed_case("alice"),
        *heater_cases("alice", in_service=False),
        Case(
            "alice",
            "stale",
            "alice.ltc2672",
            r"heater_dac at spi:0\.0: expected LTC2672 .*found (fault register )?0x",
            "heater_iv",
        ),
        LASER_DARK,
        Case(
            "alice",
            "dead",
            "alice.photodiode.6",
            rf"laser: it says {NUMBER} dBm but tap pa6 sees {NUMBER} A; the least is 1e-08 A: photodiode pa6 is dead",
            "laser",
        ),
        dead_at_boot("pa0", "filter_peak", "tap pa6"),
        dead_at_boot("pa1", "carver_bias", "pa0"),
        dead_at_boot("pa3", "state_bias", "pa1"),
        dead_at_boot("pa4", "shutter", "pa3"),
    ),
    "bob": (
        reversed_case("bob"),
        *heater_cases("bob", in_service=False),
        Case(
            "bob",
            "stale",
            "bob.ltc2672",
            r"heater_dac at spi:0\.0: expected LTC2672 .*found (fault register )?0x",
            "heater_iv",
        ),
    ),
}
# These need the transmitter's light.
LIT = (
    Case(
        "bob",
        "cut",
        "fibre",
        rf"no light from the fibre: {NUMBER} counts/s with {NUMBER} times the normal light.*"
        "16000 counts/s are the least",
        "detector_bias",
    ),
    Case(
        "bob",
        "swapped",
        "bob.detector",
        rf"detectors dx0 and dx1 are exchanged: with only dx0 biased, dx1 gives {NUMBER} counts/s and dx0 {NUMBER}; "
        "ten times its own and 1000 is the limit",
        "detector_bias",
    ),
    *(
        Case(
            "bob",
            "plateau",
            f"bob.detector.{n}",
            rf"detector {name}: no plateau up to {NUMBER} uA: the rate still rises by {NUMBER}% per uA; "
            "1% is the limit",
            "detector_bias",
            6.0,
        )
        for n, name in enumerate(DETECTORS)
    ),
)
SOURCE_STALE = (
    rf"the heater source (does not show|shows) the open-circuit flag of its spare channel at {NUMBER} mA; it has to be "
    "set when driven and at no other time: .*its answers are stale"
)
ADC_STALE = rf"monitor ADC is stale: \d readings at different heaters are the same .*{NUMBER} V.*2 are the most"


def running_away(side: str) -> Case:
    return Case(
        side,
        "reversed",
        f"{side}.tec",
        rf"CHECK POLARITY: temperature runs away from its target \({NUMBER} C, target 30\.0 C, {NUMBER} K further than "
        rf"it was; 4 K is the limit\) at {NUMBER} A, which should (cool|warm) it: Peltier element reversed",
        "heater_iv",
    )


def in_service(side: str) -> tuple[Case, ...]:
    return (
        *heater_cases(side, in_service=True),
        Case(side, "stale", f"{side}.ltc2672", SOURCE_STALE, "heater_iv"),
        Case(side, "stale", f"{side}.ads131m08", ADC_STALE, "heater_iv"),
    )


_IN_SERVICE = {
    "alice": (
        *in_service("alice"),
        *(
            Case(
                "alice",
                "dead",
                f"alice.photodiode.{n}",
                rf"photodiode {name} is dead: its amplifier reads {NUMBER} mV; {NUMBER} mV is the least",
                "photodiode_zero",
            )
            for name, n in DIODES.items()
        ),
        Case(
            "alice",
            "dead",
            "alice.laser",
            rf"the laser does not emit: {NUMBER} dBm read back; .* is the limit",
            "laser",
        ),
        running_away("alice"),
    ),
    "bob": (*in_service("bob"), running_away("bob")),
}
SERVICE = {side: tuple(replace(case, when="service") for case in cases) for side, cases in _IN_SERVICE.items()}


@dataclass
class Found:
    """What a module made of a broken part. `stored`: records of what rests on it from while it was broken."""

    why: str = ""
    shown: str = ""
    operational: str = ""
    event: str = ""
    stored: tuple[str, ...] = ()
    outputs: Outputs | None = None
    after_s: float = float("nan")


@dataclass
class Diary:
    """One run; `back` says how each module went on when everything was whole again."""

    found: dict[Case, Found] = field(default_factory=dict)
    back: list[str] = field(default_factory=list)


def break_part(run: Run, case: Case) -> None:
    now = run.loop.time()
    run.world.faults.add(Fault(now, case.kind, case.target, 1e9, case.value))
    _at_once(run)


def mend(run: Run, case: Case) -> None:
    run.world.faults._faults.pop((case.kind, case.target), None)
    _at_once(run)


def _at_once(run: Run) -> None:
    run.world.before_change()
    run.world._apply_faults(run.loop.time())


def resting_on(case: Case) -> list[str]:
    graph = GRAPHS[case.side]
    return [case.spoils, *graph.descendants(case.spoils)] if case.spoils else []


def versions(run: Run, case: Case) -> dict[str, int]:
    """Of the newest record of everything that rests on the part, good or not."""
    store = run.sites[case.side].core.records
    return {n: store.history(n)[-1].version for n in resting_on(case) if store.history(n)}


async def befall(run: Run, case: Case, within_s: float) -> Found:
    """Break it, wait for the end of the session that meets it, note what is told, mend it."""
    core, begin, before = run.sites[case.side].core, run.loop.time(), versions(run, case)
    break_part(run, case)
    found = Found()
    try:
        await until(run, lambda: _named(run, case, begin) != "", within_s, f"{case}", 0.1)
    except AssertionError as e:
        found.event = str(e)
    else:
        found.after_s = run.loop.time() - begin
        found.event = _named(run, case, begin)
        found.why, found.operational = core.life.why("activity"), core.life.why("operational")
        found.shown = str(core.life.activity)
        found.outputs = outputs(run, case.side)
    found.stored = tuple(n for n, v in versions(run, case).items() if v != before.get(n))
    mend(run, case)
    return found


def _named(run: Run, case: Case, begin: float) -> str:
    """The reason of the first session that ended for this: what was told before, or in passing, does not count."""
    failed = [str(e["why"]) for e in events(run, case.side, "session.failed", begin)]
    return failed[-1] if failed else ""


async def one_after_the_other(run: Run, cases: Iterable[Case], diary: Diary, within_s: float) -> None:
    for case in cases:
        diary.found[case] = await befall(run, case, within_s)


async def each_up_first(run: Run, cases: Iterable[Case], diary: Diary) -> None:
    for case in cases:
        await until(run, up(run, case.side), 120.0, f"up again before {case}", 0.1)
        diary.found[case] = await befall(run, case, IN_SERVICE_S)


def stage(run: Run) -> Stage | None:
    lock = run.sites["bob"].core.wiring.lock
    return lock.stage if lock else None


def up(run: Run, side: str) -> Callable[[], bool]:
    operator = run.sites[side].core.operator
    return lambda: operator.in_service


@pytest.fixture(scope="module")
def diary(tmp_path_factory: pytest.TempPathFactory) -> Diary:
    diary = Diary()

    async def script(run: Run) -> None:
        await asyncio.gather(*(one_after_the_other(run, BOOT[s], diary, AT_BOOT_S) for s in ("alice", "bob")))
        await until(run, lambda: run.sites["alice"].core.life.activity is Activity.READY, 60.0, "the transmitter is up")
        diary.back.append("alice")
        await one_after_the_other(run, LIT, diary, AT_BOOT_S)
        await until_keying(run)
        diary.back.append("bob")
        # Keys and the far module are not needed for what follows, and cost most of the time.
        for site in run.sites.values():
            site.core.wiring.keys_wanted = False
        run.sites["bob"].core.operator.hold("the far module is not needed")
        await each_up_first(run, SERVICE["alice"], diary)
        await until(run, up(run, "alice"), 120.0, "the transmitter is up")
        run.sites["bob"].core.operator.release()
        await each_up_first(run, SERVICE["bob"], diary)
        for site in run.sites.values():
            site.core.wiring.keys_wanted = True
        await until_keying(run)
        # What the sessions before kept out of the key has ended with them: counts come.
        await until(run, lambda: stage(run) not in (None, Stage.WARM_UP), 60.0, "the lock has counts")
        diary.back.append("both")

    simulate(tmp_path_factory.mktemp("diagnoses"), script, scenario=START).close()
    return diary


ALL = (*BOOT["alice"], *BOOT["bob"], *LIT)
SERVED = (*SERVICE["alice"], *SERVICE["bob"])
EVERY = [pytest.param(c, id=str(c)) for c in ALL + SERVED]


@pytest.mark.parametrize("case", EVERY)
def test_part_reading_and_limit_are_named(diary: Diary, case: Case) -> None:
    found = diary.found[case]
    assert re.search(case.says, found.event), found.event


@pytest.mark.parametrize("case", EVERY)
def test_the_state_carries_the_diagnosis(diary: Diary, case: Case) -> None:
    found = diary.found[case]
    assert found.shown == Activity.SAFE
    assert re.search(case.says, found.why)
    assert "trying again in" in found.why
    assert re.search(case.says, found.operational)


@pytest.mark.parametrize("case", EVERY)
def test_nothing_that_rests_on_the_part_was_stored(diary: Diary, case: Case) -> None:
    assert diary.found[case].stored == ()


@pytest.mark.parametrize("case", EVERY)
def test_outputs_are_safe(diary: Diary, case: Case) -> None:
    seen = diary.found[case].outputs
    assert seen is not None
    assert seen.rails_off
    assert not any(seen.detector_bias_a)
    assert not seen.tec_on or case.kind != "reversed"


def test_modules_come_up_by_themselves_once_all_is_whole(diary: Diary) -> None:
    assert diary.back == ["alice", "bob", "both"]
    assert len(diary.found) == len(EVERY)


def test_a_broken_part_is_named_before_the_loops_that_it_upsets(diary: Diary) -> None:
    slow = [c for c in SERVED if diary.found[c].after_s > 2.5 and c.target != "alice.laser" and c.kind != "reversed"]
    assert slow == []


def test_the_page_shows_what_modules_say() -> None:
    """Every text of the how-to is one that a case of this table gives, or would with its own numbers and names."""
    page = rows(sections(DOCS / "how-to" / "read-a-diagnosis.md")["What it says"])
    shown = {row[0]: row[2] for row in page}
    assert "heater changed" in shown
    for name, _, said, _ in page:
        if name != "heater changed":
            assert any(re.search(case.says, said) for case in ALL + SERVED), name
    for case in ALL + SERVED:
        kinds = [said for _, _, said, _ in page if re.search(_any_name(case.says), said)]
        assert kinds, case


def _any_name(says: str) -> str:
    """The same diagnosis of another part of its kind, seen by another witness."""
    says = re.sub(r"although .*", "although", says)
    return re.sub(r"heater '?\w+'?", r"heater '?\\w+'?", re.sub(r"(photodiode|detector) \w+", r"\1 \\w+", says))
