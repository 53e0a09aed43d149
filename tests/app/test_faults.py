"""Parts that vanish and buses that fall silent while keys are made: dark at once, with a reason, and back by itself.

The faults come one after the other, at both modules at once. What notices them has the periods of production.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from qmodd.soak import Run
from tests.app.pair import Outputs, events, keying, outputs, simulate, strike, until, until_keying

PRODUCTION = {"watchdog_period_s": 0.1}
HEARTBEAT_S = 0.3
# Two readings that fail in a row (a loop has one restart), a time-out of a slow bus each, and the session's own end.
SAFE_WITHIN_S = 1.5
# Longest pause before another try, identification, locks, synchronisation.
BACK_WITHIN_S = 90.0
# Long enough for another try to open the devices while the part is gone: the longest pause is 15 s.
UNPLUGGED_S, BUS_FAULT_S = 20.0, 4.0


@dataclass(frozen=True)
class Case:
    """`what`: "unplug" a part, or a kind of bus fault.

    `names`: what the reason has to name in service, `identity`: what has to be told when the device is opened again.
    """

    site: str
    what: str
    target: str
    names: tuple[str, ...]
    identity: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.what} {self.site}.{self.target}"


# part, in service, at the next open
PARTS = (
    ("ina228", ("heater rail", "i2c:1", "0x40"), ("heater_rail at i2c:1:0x40", "INA228")),
    ("tmp117", ("submount", "i2c:1", "0x48"), ("submount at i2c:1:0x48", "TMP117")),
    ("pca9535", ("i2c:2", "0x20"), ("platform at i2c:2:0x20", "PCA9535")),
    ("ltc2672", ("heater source", "spi:0.0"), ("heater_dac at spi:0.0", "LTC2672")),
    ("ltc2668", ("bias source", "spi:0.1"), ("bias_dac at spi:0.1", "LTC2668")),
    ("ads131m08", ("photodiodes", "ADS131M08"), ("monitor_adc at spi:1.0", "ADS131M08")),
    ("tec", ("temperature", "serial:tec"), ("tec at serial:tec", "MeCom TEC")),
)
OWN_PARTS = {
    "alice": (
        ("laser", ("laser", "serial:laser"), ("laser at serial:laser", "ITLA")),
        ("source", ("symbol source", "visa:source"), ("symbol_source at visa:source", "SYMBOL-SOURCE")),
    ),
    "bob": (
        ("snspd", ("detector", "tcp:snspd"), ("detectors at tcp:snspd", "SNSPD")),
        ("tagger", ("time tagger", "visa:tagger"), ("time_tagger at visa:tagger", "TIME-TAGGER")),
    ),
}
BUSES = {
    "i2c1": ("i2c:1",),
    "i2c2": ("i2c:2",),
    "spi0.0": ("heater source",),
    "spi0.1": ("bias source", "spi:0.1"),
    "spi1.0": ("photodiodes",),
    "serial.tec": ("temperature", "serial:tec"),
}
OWN_BUSES = {
    "alice": {"serial.laser": ("laser", "serial:laser"), "visa.source": ("symbol source", "visa:source")},
    "bob": {"tcp.snspd": ("detector", "tcp:snspd"), "visa.tagger": ("time tagger", "visa:tagger")},
}
OTHER_KINDS = (("nack", "i2c2"), ("garbage", "spi1.0"))


def cases(site: str) -> list[Case]:
    unplugged = [Case(site, "unplug", *part) for part in PARTS + OWN_PARTS[site]]
    hung = [Case(site, "hang", bus, names) for bus, names in {**BUSES, **OWN_BUSES[site]}.items()]
    return unplugged + hung + [Case(site, kind, bus, BUSES[bus]) for kind, bus in OTHER_KINDS]


@dataclass
class Found:
    """What a fault did: None where it did not within the time given."""

    safe_after_s: float | None = None
    keyed_after_s: float | None = None
    while_safe: Outputs | None = None
    reasons: tuple[str, ...] = ()
    inhibited: tuple[str, ...] = ()
    peer_saw: str = ""


async def befall(run: Run, case: Case, held_s: float) -> Found:
    """From a fault to its end."""
    found, begin = Found(), run.loop.time()
    site, rig = run.sites[case.site].core, run.rigs[case.site]
    if case.what == "unplug":
        rig.unplug(case.target)
    else:
        strike(run, case.what, f"{case.site}.{case.target}", held_s)
    while found.safe_after_s is None and run.loop.time() - begin < 0.9 * held_s:
        if outputs(run, case.site).rails_off:
            found.safe_after_s = run.loop.time() - begin
        await asyncio.sleep(0.02)
    await asyncio.sleep(max(0.0, begin + held_s - 0.05 - run.loop.time()))
    found.while_safe = outputs(run, case.site)
    safe = [e for e in events(run, case.site, "state.activity", begin) if e["value"] == "safe"]
    found.reasons = tuple(str(e["why"]) for e in safe)
    found.inhibited = tuple(site.life.inhibited)
    found.peer_saw = run.sites["bob" if case.site == "alice" else "alice"].core.engine.status.peer_why
    if case.what == "unplug":
        rig.replug(case.target)
    return found


async def befall_both(run: Run, pair: tuple[Case, Case]) -> dict[Case, Found]:
    """The same kind of thing befalls both modules at once; then the pair has to find back to keys."""
    held_s = UNPLUGGED_S if pair[0].what == "unplug" else BUS_FAULT_S
    found = dict(zip(pair, await asyncio.gather(*(befall(run, case, held_s) for case in pair)), strict=True))
    await asyncio.sleep(0.2)
    back = run.loop.time()
    try:
        await until(run, lambda: keying(run), BACK_WITHIN_S, "keys again")
        took = run.loop.time() - back
        for each in found.values():
            each.keyed_after_s = took
    except AssertionError as e:
        for each in found.values():
            each.reasons += (str(e),)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Found]:
    found: dict[Case, Found] = {}

    async def script(run: Run) -> None:
        for each in run.sites.values():
            each.core.wiring.heartbeat_s = HEARTBEAT_S
        await until_keying(run)
        for pair in zip(cases("alice"), cases("bob"), strict=True):
            found.update(await befall_both(run, pair))

    simulate(tmp_path_factory.mktemp("faults"), script, settings=PRODUCTION).close()
    return found


ALL = cases("alice") + cases("bob")


@pytest.mark.parametrize("case", ALL, ids=str)
def test_rails_drop(found: dict[Case, Found], case: Case) -> None:
    after = found[case].safe_after_s
    assert after is not None
    assert after <= SAFE_WITHIN_S


@pytest.mark.parametrize("case", ALL, ids=str)
def test_reason_names_what_failed_and_where(found: dict[Case, Found], case: Case) -> None:
    said = " | ".join(found[case].reasons)
    assert said
    for name in case.names:
        assert name in said


@pytest.mark.parametrize("case", [c for c in ALL if c.identity], ids=str)
def test_missing_part_is_told_with_place_expected_and_found(found: dict[Case, Found], case: Case) -> None:
    said = " | ".join(found[case].reasons)
    for words in (*case.identity, "expected", "found"):
        assert words in said


@pytest.mark.parametrize("case", ALL, ids=str)
def test_nothing_is_driven_meanwhile(found: dict[Case, Found], case: Case) -> None:
    """Detectors behind a silent controller cannot be reached; everything else is off, and that one is said."""
    seen = found[case].while_safe
    assert seen is not None
    assert seen.rails_off
    if case.target == "tcp.snspd":
        assert "detectors" in found[case].inhibited
    elif case.target != "spi0.0":
        assert seen.dark


@pytest.mark.parametrize("case", ALL, ids=str)
def test_keys_come_back_by_themselves(found: dict[Case, Found], case: Case) -> None:
    assert found[case].keyed_after_s is not None, found[case].reasons[-1]


@pytest.mark.parametrize("case", ALL, ids=str)
def test_the_far_module_is_told_why(found: dict[Case, Found], case: Case) -> None:
    assert found[case].peer_saw
