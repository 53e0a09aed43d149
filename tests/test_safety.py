import asyncio
import itertools
from dataclasses import dataclass, field

import pytest

from drivers.errors import BusFault
from qmodd.safety import InterlockOpen, Watchdog, WatchdogStarved, check_interlock, drop_enables, safe_state


@dataclass
class Platform:
    levels: dict[str, bool] = field(
        default_factory=lambda: {"laser_enable": True, "heater_enable": True, "interlock_ok": True}
    )
    writes: list[tuple[str, bool]] = field(default_factory=list)
    broken: frozenset[str] = frozenset()
    lines: tuple[str, ...] = ()

    async def write(self, line: str, level: bool) -> None:
        if line in self.broken:
            raise BusFault(f"{line}: no acknowledge")
        self.levels[line] = level
        self.writes.append((line, level))

    async def read(self, line: str) -> bool:
        return self.levels.get(line, False)


@dataclass
class CheckIns:
    names: list[str] = field(default_factory=list)
    after: int = 5

    def late(self) -> list[str]:
        self.after -= 1
        return self.names if self.after < 0 else []


async def test_line_toggles_until_a_loop_is_silent() -> None:
    platform = Platform()
    with pytest.raises(WatchdogStarved, match=r"tec 2\.0 s"):
        await Watchdog(platform, CheckIns(["tec 2.0 s"]), 0.001).run()
    toggles = [level for line, level in platform.writes if line == "watchdog"]
    assert len(toggles) == 6
    assert all(a != b for a, b in itertools.pairwise(toggles))
    assert not platform.levels["laser_enable"]
    assert not platform.levels["heater_enable"]


@pytest.mark.parametrize(
    ("line", "level", "words"), [("watchdog_tripped", True, "hardware"), ("interlock_ok", False, "interlock")]
)
async def test_hardware_facts_stop_it(line: str, level: bool, words: str) -> None:
    platform = Platform()
    platform.levels[line] = level
    with pytest.raises(WatchdogStarved, match=words):
        await Watchdog(platform, CheckIns(), 0.001).run()


async def test_both_rails_are_tried() -> None:
    platform = Platform(broken=frozenset({"laser_enable"}))
    with pytest.raises(BusFault):
        await drop_enables(platform)
    assert not platform.levels["heater_enable"]


@dataclass
class Output:
    name: str
    fault: str = ""
    hang: bool = False
    safe: bool = False

    async def make_safe(self) -> None:
        if self.hang:
            await asyncio.Event().wait()
        if self.fault:
            raise BusFault(self.fault)
        self.safe = True


async def test_safe_state_reports_what_fails_and_goes_on() -> None:
    said: dict[str, str] = {}
    outputs = [Output("laser", fault="reply garbled"), Output("tec", hang=True), Output("heaters")]
    await safe_state(Platform(), outputs, said.__setitem__, 0.01)
    assert outputs[2].safe
    assert "reply garbled" in said["laser"]
    assert "no answer in time" in said["tec"]


@pytest.mark.parametrize(
    ("levels", "cover", "words"),
    [
        ({"cover_closed": False}, True, "the cover is open"),
        ({"cover_closed": False, "interlock_ok": False}, True, "the cover is open"),
        ({"interlock_ok": False}, False, "the interlock loop is open"),
    ],
)
async def test_cover_and_loop_are_told_apart(levels: dict[str, bool], cover: bool, words: str) -> None:
    platform = Platform(lines=("interlock_ok", "cover_closed"))
    platform.levels |= {"cover_closed": True} | levels
    with pytest.raises(InterlockOpen, match=words) as told:
        await check_interlock(platform)
    assert told.value.cover is cover


async def test_a_module_without_the_line_is_not_asked_for_its_cover() -> None:
    await check_interlock(Platform())
