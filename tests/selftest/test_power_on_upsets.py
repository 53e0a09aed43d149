"""What no part tells of itself: flipped register bits, the controller's disk, clock, generator, leftovers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Verdict
from qmodd.selftest.power_on_platform import inputs
from qmodd.soak import Run
from tests.selftest.bench import fault, on_bench
from tests.selftest.power_on import examined, names


def upset(part: str, register: int, value: int) -> Callable[[Bench, Run], None]:
    """One bit of a register has flipped, which no part tells of itself."""

    def meddle(bench: Bench, run: Run) -> None:
        run.rigs[bench.side].part(part)._registers[register] = value

    return meddle


def stuck_disk(bench: Bench, _run: Run) -> None:
    bench.host.disk = lambda _path: (10 << 20, 16 << 30)


def wild_clock(bench: Bench, _run: Run) -> None:
    bench.host.clock_synchronised = lambda: (False, "no source within 3 s")


class Repeating:
    """A generator that has lost its state: the same bytes again and again."""

    def bytes(self, n: int) -> bytes:
        return np.random.default_rng(1).bytes(n)

    def uuid(self) -> Any:
        raise NotImplementedError


class Weak(Repeating):
    """Ones are twice as likely as zeros."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(2)

    def bytes(self, n: int) -> bytes:
        return np.packbits(self._random.random(8 * n) < 2 / 3).tobytes()


def generator(instead: Repeating) -> Callable[[Bench, Run], None]:
    def meddle(bench: Bench, _run: Run) -> None:
        bench.randomness = instead

    return meddle


def leftover(bench: Bench, run: Run) -> None:
    """A setting that somebody has got wrong on the instrument's own panel."""
    run.rigs[bench.side].part("tagger").execute(b"TAGS:NONSENSE\n")


def other_module(bench: Bench, _run: Run) -> None:
    del bench.module.identities["tec"]


MEDDLED: list[tuple[str, Callable[[Bench, Run], None], str, str]] = [
    ("alice", upset("tmp117", 1, 0x0620), "submount", "registers.submount"),
    ("bob", upset("ads131m08", 4, 0x0010), "monitor_adc", "registers.monitor_adc"),
    ("alice", upset("pca9535", 4, 0x01), "platform", "registers.platform"),
    ("bob", stuck_disk, "disk", "disk_free"),
    ("bob", generator(Repeating()), "random numbers", "system_random.repeats"),
    ("alice", generator(Weak()), "random numbers", "system_random.share"),
    ("bob", leftover, "time_tagger", "error_queue.time_tagger"),
    ("bob", other_module, "tec", "identity.tec"),
]


@pytest.mark.parametrize(("side", "meddle", "part", "finding"), MEDDLED)
def test_what_is_not_as_it_should_be_is_named(
    side: str, meddle: Callable[[Bench, Run], None], part: str, finding: str
) -> None:
    report = examined(side, meddle=meddle)
    assert finding in names(report)
    assert report.suspects == (part,)


def test_a_clock_without_a_source_is_a_warning_only() -> None:
    """A module in a rack without a time server still makes keys."""
    report = examined("alice", meddle=wild_clock)
    assert report.passed
    warned = next(f for f in report.findings if f.name == "clock_synchronised")
    assert warned.verdict is Verdict.WARNED
    assert "no source within 3 s" in warned.why


@pytest.mark.parametrize(("contact", "line"), [("cover", "input.cover_closed"), ("interlock", "input.interlock_ok")])
def test_an_open_contact_is_named_before_it_ends_the_session(contact: str, line: str) -> None:
    """The watchdog looks every tenth of a second and then takes the rails down; this look is in between."""

    async def work(bench: Bench, run: Run) -> dict[str, tuple[bool, str]]:
        await bench.sleep(0.131 - run.loop.time())
        return {f.name: (f.ok, f.part) for f in await inputs(bench)}

    found = on_bench("alice", work, faults=[fault(f"alice.{contact}", "open", at=0.13)])
    assert found[line] == (False, "interlock")
    assert found["input.watchdog_tripped"] == (True, "platform")


def test_a_slot_length_that_is_another_is_seen() -> None:
    report = examined("alice", ("source", "period", {}))
    assert names(report) == {"symbol_period"}
    assert report.suspects == ("symbol_source",)


def test_a_source_that_gives_current_by_itself() -> None:
    report = examined("alice", ("ltc2672.1", "stuck", {"value": 20_000}))
    assert "rail_idle_current" in names(report)
    assert report.suspects == ("heater_dac",)


def test_gains_that_are_not_kept_are_seen_when_they_were_set_before() -> None:
    report = examined("bob", ("tec", "forgetful", {}), at=0.0)
    assert names(report) == {"registers.tec"}
    assert report.suspects == ("tec",)
