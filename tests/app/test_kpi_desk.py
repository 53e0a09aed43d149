"""KPIs over restarts, kills, wrong clocks and damaged files; and what is published."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmodd.app.kpi_desk import CHUNK_BYTES, FILE, TICK_S, KpiDesk, entries_after
from qmodd.clock import LoopClock
from qmodd.events import EventLog
from qmodd.keys.conversation import Blocking
from qmodd.messages import Kpi
from qmodd.monitoring.kpi import Sums, total
from qmodd.outbox import Outbox
from qmodd.soak import Run, spans
from sim.loop import SimulatedLoop
from tests.app.pair import simulate, until_keying
from tests.uplink_fakes import HandClock

MODULE = "QM-B-0001"


class Site:
    """A desk and its files; `kill` leaves what is on disk, `stop` ends as the daemon does."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.clock = directory, HandClock()
        self.told: list[dict[str, Any]] = []
        self.begin()

    def begin(self, locked: bool = False) -> None:
        self.outbox = Outbox(None)
        self.events = EventLog(self.directory / "events.jsonl", self.clock, MODULE)
        tell = lambda _group, numbers: self.told.append(numbers)  # noqa: E731
        path, calls = self.directory / FILE, Blocking(threads=False)
        self.desk = KpiDesk(path, self.clock, self.outbox, self.events, tell, calls, locked=locked)
        self.events.record("core.started")

    def kill(self, away_s: float = 0.0) -> None:
        self.events.close()
        self.outbox.close()
        self.clock.t += away_s
        self.begin()

    def after(self, seconds: float, event: str = "", **fields: Any) -> None:
        self.clock.t += seconds
        if event:
            self.events.record(event, fields)

    def tick(self) -> None:
        asyncio.run(self.desk.tick())

    @property
    def sums(self) -> Sums:
        return total(self.desk.kpis.days.spans.values())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.events.close()
    site.outbox.close()


def test_what_was_not_saved_is_counted_from_the_log(site: Site) -> None:
    site.after(10, "state.activity", value="keying", why="")
    site.after(50, "key.acknowledged", keys=10, recipient="kms")
    site.tick()
    site.after(20, "key.acknowledged", keys=7, recipient="kms")
    site.after(5)
    site.kill(away_s=30)
    assert site.sums.keys_delivered == 17
    assert (site.sums.keying_s, site.sums.absent_s) == (70.0, 35.0)
    for _ in range(3):
        site.kill()
    assert (site.sums.keys_delivered, site.sums.covered_s) == (17, 115.0)


def test_without_its_file_the_log_tells_it_all_again(site: Site) -> None:
    site.after(10, "state.activity", value="keying", why="")
    site.after(50, "key.acknowledged", keys=10, recipient="kms")
    site.tick()
    before = site.desk.kpis.snapshot()
    (site.directory / FILE).write_text('{"quarters": 3}')
    site.kill()
    assert site.sums.keys_delivered == 10
    assert {"kpi.json.damaged", "kpi.damaged"} & {p.name for p in site.directory.iterdir()}
    assert "kpi.file_damaged" in (site.directory / "events.jsonl").read_text()
    assert site.desk.kpis.days.spans.keys() == {t for t, _ in before["days"]}


def test_published_message_is_the_model_and_tells_the_same(site: Site) -> None:
    site.after(10, "state.activity", value="keying", why="")
    site.after(90, "block.kept", key_bits=9000, n_z=1000, qber_z=0.01, n_x=100, qber_x=0.02)
    site.tick()
    payload = site.outbox.retained("kpi")["kpi"]
    told = Kpi.model_validate_json(payload)
    assert (told.module, len(told.bins_15min), len(told.bins_24h)) == (MODULE, 1, 1)
    assert (told.last_24h.availability, told.last_24h.skr_bps, told.last_24h.qber_z) == (0.9, 90.0, 0.01)
    assert told.last_24h.mttr_s is None
    assert b"mttr" not in payload
    assert site.told[-1]["skr_bps"] == 90.0
    assert "mttr_s" not in site.told[-1]
    assert all(isinstance(v, int | float) for v in site.told[-1].values())


def test_a_full_message_has_room(site: Site) -> None:
    site.events.record("state.activity", {"value": "keying", "why": ""})
    for _ in range(70 * 96):
        site.clock.t += 900
        site.desk.kpis.advance(site.clock.utc().timestamp())
        site.desk.kpis.quarters.at(site.clock.utc().timestamp()).alarms_raised += 1
    site.tick()
    payload = site.outbox.retained("kpi")["kpi"]
    told = Kpi.model_validate_json(payload)
    assert (len(told.bins_15min), len(told.bins_24h)) == (96, 62)
    assert len(payload) < 120_000


def test_a_module_that_was_locked_before_counts_as_planned(site: Site) -> None:
    site.events.close()
    site.outbox.close()
    site.begin(locked=True)
    site.after(100)
    site.tick()
    assert site.sums.planned_s == 100.0


def test_a_clock_that_is_set_is_not_time_that_passed(site: Site) -> None:
    site.after(10, "state.activity", value="keying", why="")
    site.after(10)
    real = site.clock.utc
    site.clock.utc = lambda: real().replace(year=2027)  # type: ignore[method-assign]
    site.after(20, "key.acknowledged", keys=1)
    site.tick()
    assert site.sums.keying_s == 30.0
    site.clock.utc = real  # type: ignore[method-assign]
    site.after(5)
    site.tick()
    assert all(t < real().timestamp() for t in site.desk.kpis.days.spans)
    site.after(5)
    site.tick()
    assert site.sums.keying_s == 35.0  # all but the 5 s in which the date was put right


def test_an_unsynchronised_clock_that_is_behind_counts_nothing_twice(site: Site) -> None:
    site.after(1000, "state.activity", value="keying", why="")
    site.tick()
    site.clock.t, site.clock.synchronised = 0.0, False  # a host without a battery
    site.kill()
    site.after(50)
    site.tick()
    assert site.sums.covered_s == 1000.0


def test_it_publishes_every_minute_and_at_the_end(tmp_path: Path) -> None:
    loop = SimulatedLoop()
    puts: list[float] = []

    async def main() -> None:
        clock = LoopClock(loop)
        outbox = Outbox(None)
        outbox.taps.append(lambda suffix, _payload, _retain: puts.append(loop.time()))
        events = EventLog(None, clock, MODULE)
        desk = KpiDesk(
            tmp_path / FILE, clock, outbox, events, lambda _g, _n: None, Blocking(threads=False), durable=False
        )
        events.record("core.started")
        task = asyncio.create_task(desk.run())
        await asyncio.sleep(2000)
        task.cancel()
        await asyncio.wait({task})
        outbox.close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    assert puts == [*(TICK_S * n for n in range(34)), 2000.0]
    saved = json.loads((tmp_path / FILE).read_text())
    assert saved["now"] % 86_400 == 2000.0


@pytest.mark.parametrize("seq", [0, 1, 4990, 4999, 5000, 6000])
def test_the_end_of_a_log_is_read_backwards(tmp_path: Path, seq: int) -> None:
    path = tmp_path / "events.jsonl"
    lines = [json.dumps({"seq": n, "event": "x" * (n % 50)}) for n in range(1, 5001)]
    path.write_text("\n".join(lines) + '\n{"seq": 5001, "ev')
    assert path.stat().st_size > 2 * CHUNK_BYTES
    assert [e["seq"] for e in entries_after(path, seq)] == list(range(seq + 1, 5001))


def test_no_log_is_no_entries(tmp_path: Path) -> None:
    assert entries_after(tmp_path / "none", 0) == []


@pytest.mark.long
@pytest.mark.slow
def test_of_a_pair_that_makes_keys(tmp_path: Path) -> None:
    """What is published agrees with the event log, the stores and the receivers."""

    async def script(run: Run) -> None:
        await until_keying(run)
        await asyncio.sleep(150.0)

    run = simulate(tmp_path, script)
    for site in run.sites.values():
        told = Kpi.model_validate_json(site.core.outbox.retained("kpi")["kpi"]).last_24h
        entries = site.core.events.entries
        keying = spans(entries, "state.activity", "value", "keying", run.ended_s)
        assert told.keying_s == pytest.approx(sum(b - a for a, b in keying), abs=1.0)
        kept = [e for e in entries if e["event"] == "block.kept"]
        assert (told.blocks, told.secret_bits) == (len(kept), sum(int(str(e["key_bits"])) for e in kept))
        assert told.keys_delivered == len(site.receiver.digests()) > 0
        assert told.latency_mean_s is not None
        assert 0.0 < told.latency_mean_s <= told.latency_max_s < 60.0
        assert (told.lock_uptime is None) is (site.name == "alice")
    run.close()
