"""Safe stop: what the world sees when a daemon is told to stop, and when it cannot act any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from qmodd.lifecycle import Activity, Operational
from qmodd.soak import Run
from tests.app.pair import Outputs, events, outputs, simulate, strike, until, until_keying

STEP_S = 0.02
HARDWARE_S = 0.6


class Stopped:
    """A pair that made keys and was cancelled, as SIGTERM does."""

    def __init__(self, directory: object) -> None:
        self.before: dict[str, Outputs] = {}
        self.run = simulate(directory, self._script)  # type: ignore[arg-type]

    async def _script(self, run: Run) -> None:
        await until_keying(run)
        self.before = {name: outputs(run, name) for name in run.sites}
        self.at_s = run.loop.time()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stopped]:
    stopped = Stopped(tmp_path_factory.mktemp("stopped"))
    yield stopped
    stopped.run.close()


def test_before_the_stop_everything_is_on(stopped: Stopped) -> None:
    alice, bob = stopped.before["alice"], stopped.before["bob"]
    assert alice.emitting
    assert alice.heater_rail_on
    assert bob.heater_rail_on
    assert all(alice.heater_currents_a[:4])
    assert all(a > 5e-6 for a in bob.detector_bias_a)


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_cancelled_daemon_leaves_everything_off(stopped: Stopped, name: str) -> None:
    after = outputs(stopped.run, name)
    assert after.dark
    assert not stopped.run.rigs[name].watchdog.tripped  # the daemon did it, not the hardware


def test_modulators_and_shutters_are_at_their_safe_values(stopped: Stopped) -> None:
    run = stopped.run
    assert run.world.alice.voa_loss_db() >= 35.0
    assert not run.world.bob.bank.bias.any()
    assert run.world.alice.source.mode_at(run.world.alice.source.run_now()[1]) == "OFF"


def test_it_takes_no_simulated_second(stopped: Stopped) -> None:
    assert stopped.run.loop.time() - stopped.at_s <= 2.0  # the run's own look once a second included


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_reason_is_the_stop_and_outputs_are_inhibited(stopped: Stopped, name: str) -> None:
    life = stopped.run.sites[name].core.life
    assert (life.activity, life.operational) == (Activity.SAFE, Operational.DISABLED)
    assert life.why("activity") == "the daemon is stopping"
    assert {"heater_dac", "bias_dac", "tec"} <= life.inhibited.keys()
    assert [e["event"] for e in stopped.run.sites[name].core.events.entries][-1] == "core.stopped"
    assert events(stopped.run, name, "output.not_confirmed_safe") == []


class Frozen:
    """Both cores stand still (a process that is stopped, or blocked): only the world and its hardware go on."""

    def __init__(self, directory: object) -> None:
        self.dropped: dict[str, float] = {}
        self.run = simulate(directory, self._script)  # type: ignore[arg-type]

    async def _script(self, run: Run) -> None:
        await until_keying(run)
        # Each start of a daemon makes its watchdog trip once, as a test of it.
        before = {name: rig.watchdog.trips for name, rig in run.rigs.items()}
        begin = run.loop.time()
        for _ in range(round(1.0 / STEP_S)):
            run.loop.jump(STEP_S)  # nothing of the daemons runs in here
            for name in run.sites:
                if outputs(run, name).rails_off:
                    self.dropped.setdefault(name, run.loop.time() - begin)
        self.trips = {name: rig.watchdog.trips - before[name] for name, rig in run.rigs.items()}
        self.thawed_s = run.loop.time()
        await until(run, lambda: bool(events(run, "alice", "session.failed", begin)), 5.0, "trip noticed")
        self.back_s = await until_keying(run)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frozen]:
    frozen = Frozen(tmp_path_factory.mktemp("frozen"))
    yield frozen
    frozen.run.close()


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_hardware_drops_the_rails_of_a_frozen_core(frozen: Frozen, name: str) -> None:
    assert frozen.dropped[name] <= HARDWARE_S
    assert frozen.trips[name] == 1


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_thawed_core_says_what_happened_and_goes_on(frozen: Frozen, name: str) -> None:
    said = [str(e["why"]) for e in events(frozen.run, name, "session.failed", frozen.thawed_s)]
    assert said
    assert "hardware watchdog" in said[0] or "no sign of life" in said[0]
    assert frozen.back_s < 120.0
    assert not frozen.run.rigs[name].watchdog.tripped


class Interlocked:
    def __init__(self, directory: object) -> None:
        self.seen: list[Outputs] = []
        self.run = simulate(directory, self._script)  # type: ignore[arg-type]

    async def _script(self, run: Run) -> None:
        await until_keying(run)
        strike(run, "open", "alice.interlock", 6.0)
        self.begin_s = run.loop.time()
        self.light_off_s = await until(run, lambda: not outputs(run, "alice").emitting, 1.0, "light off", 0.01)
        self.heat_off_s = await until(run, lambda: outputs(run, "alice").rails_off, 1.0, "heat off", 0.01)
        for _ in range(50):
            self.seen.append(outputs(run, "alice"))
            await asyncio.sleep(0.1)
        self.back_s = await until_keying(run)


def test_open_interlock_is_dark_until_it_closes(tmp_path: object) -> None:
    it = Interlocked(tmp_path)
    said = [str(e["why"]) for e in events(it.run, "alice", "session.failed", it.begin_s)]
    it.run.close()
    assert it.light_off_s <= 0.15  # the hardware's own AND
    assert it.heat_off_s <= 0.5
    assert not any(seen.emitting for seen in it.seen)
    assert "interlock loop is open" in said[0]
    assert it.back_s < 60.0


def test_loss_of_the_platform_bus_is_caught_by_the_hardware(tmp_path: object) -> None:
    """The bus of the enable lines themselves: the daemon cannot act, the hardware has to."""
    dropped: dict[str, float] = {}

    async def script(run: Run) -> None:
        await until_keying(run)
        before = run.rigs["alice"].watchdog.trips
        strike(run, "hang", "alice.i2c2", 3.0)
        dropped["alice"] = await until(run, lambda: outputs(run, "alice").rails_off, 2.0, "rails off", 0.01)
        dropped["trips"] = run.rigs["alice"].watchdog.trips - before
        dropped["unconfirmed"] = len(events(run, "alice", "output.not_confirmed_safe"))

    simulate(tmp_path, script).close()  # type: ignore[arg-type]
    assert dropped["alice"] <= HARDWARE_S
    assert dropped["trips"] == 1
    assert dropped["unconfirmed"] >= 1
