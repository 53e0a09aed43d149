"""sd_notify over real datagram sockets, by path and by abstract name, and what feeds the watchdog."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from qmodd.control.loop import CheckIn
from qmodd.daemon import Health, precise_loop, supervised
from qmodd.systemd import Notifier, Supervision, watchdog_period


class Manager:
    """systemd's end of the socket."""

    def __init__(self, address: str | bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        out = []
        while True:
            try:
                out.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return out


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[Manager, Notifier]]:
    path = str(tmp_path / "notify")
    found = Manager(path)
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": path})
    yield found, notifier
    notifier.close()
    found.socket.close()


def test_messages_as_the_manual_says(manager: tuple[Manager, Notifier]) -> None:
    heard, notifier = manager
    assert notifier.active
    notifier.ready()
    notifier.status("keying:\n distilling   keys")
    notifier.watchdog()
    notifier.extend_timeout(10.5)
    notifier.stopping()
    assert heard.heard() == [
        "READY=1",
        "STATUS=keying: distilling keys",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=10500000",
        "STOPPING=1",
    ]
    notifier.status("é" * 1000)
    (long,) = heard.heard()
    assert len(long.encode()) <= 407


def test_abstract_names() -> None:
    name = f"qmodd-test-{os.getpid()}"
    heard = Manager(b"\0" + name.encode())
    notifier = Notifier(f"@{name}")
    notifier.ready()
    assert heard.heard() == ["READY=1"]
    heard.socket.close()
    notifier.ready()
    assert notifier.lost == 1
    notifier.close()
    notifier.ready()
    assert notifier.lost == 1


def test_without_a_manager_nothing_is_said() -> None:
    notifier = Notifier.from_environment({})
    assert not notifier.active
    notifier.ready()
    notifier.close()
    with pytest.raises(ValueError, match="neither a path nor an abstract name"):
        Notifier("relative")


def test_watchdog_period() -> None:
    assert watchdog_period({}, 7) is None
    assert watchdog_period({"WATCHDOG_USEC": "2500000"}, 7) == 2.5
    assert watchdog_period({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "7"}, 7) == 2.5
    assert watchdog_period({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "8"}, 7) is None
    for bad in ("0", "-1", "soon"):
        with pytest.raises(ValueError, match="WATCHDOG_USEC"):
            watchdog_period({"WATCHDOG_USEC": bad}, 7)


async def test_the_watchdog_starves_with_a_reason(manager: tuple[Manager, Notifier]) -> None:
    heard, notifier = manager
    slept: list[float] = []
    against: list[str | None] = [None, None, "loop decoy bias silent for 3.0 s", None]

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == len(against):
            raise asyncio.CancelledError

    watch = Supervision(notifier, 2.0, lambda: against[len(slept)], lambda: "ready: all well", sleep)
    with pytest.raises(asyncio.CancelledError):
        await watch.run()
    assert heard.heard() == [
        "READY=1",
        "WATCHDOG=1",
        "STATUS=ready: all well",
        "WATCHDOG=1",
        "STATUS=watchdog not fed: loop decoy bias silent for 3.0 s",
        "WATCHDOG=1",
        "STATUS=ready: all well",
    ]
    assert slept == [0.8] * 4


class Scheduling:
    def __init__(self) -> None:
        self.check_in = CheckIn()
        self.running = False


class FakeCore:
    """As much of a core as its supervision sees; `run` has an operator's task like the real one."""

    def __init__(self) -> None:
        self.now = 0.0
        self.scheduler = Scheduling()
        clock = SimpleNamespace(monotonic=lambda: self.now)
        self.wiring = SimpleNamespace(scheduler=self.scheduler, clock=clock)
        self.life = SimpleNamespace(activity="ready", why=lambda _: "waiting for the receiver")
        self.end = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.end.wait(), name="operator")


async def test_health_needs_every_loop_and_the_operator() -> None:
    core = FakeCore()
    health = Health(cast(Any, core))
    assert health.why() is None  # nothing has begun yet
    task = asyncio.create_task(core.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert health.why() is None
    core.scheduler.check_in.expect("decoy bias", 2.0, 0.0)
    core.now = 5.0
    assert health.why() is None  # a scheduler that has stopped expects nothing
    core.scheduler.running = True
    assert health.why() == "loop decoy bias silent for 5.0 s"
    core.scheduler.check_in.report("decoy bias", 5.0)
    assert health.why() is None
    core.end.set()
    await task
    assert health.why() == "the operator's task has ended"


async def test_a_core_is_ready_fed_and_says_that_it_stops(manager: tuple[Manager, Notifier]) -> None:
    heard, notifier = manager
    core = FakeCore()
    task = asyncio.create_task(supervised(cast(Any, core), notifier, 0.05))
    await asyncio.sleep(0.06)
    said = heard.heard()
    assert said[0] == "READY=1"
    assert said.count("WATCHDOG=1") >= 2
    assert "STATUS=ready: waiting for the receiver" in said
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard.heard()[-2:] == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=10000000"]


async def test_a_core_that_ends_by_itself_is_told_too(manager: tuple[Manager, Notifier]) -> None:
    heard, notifier = manager
    core = FakeCore()
    core.end.set()
    await supervised(cast(Any, core), notifier, None)
    assert "STOPPING=1" in heard.heard()


def test_timers_of_the_daemons_loop_are_not_rounded_to_milliseconds() -> None:
    async def late() -> float:
        loop = asyncio.get_running_loop()
        seen = []
        for _ in range(20):
            due = loop.time() + 0.0003
            await asyncio.sleep(0.0003)
            seen.append(loop.time() - due)
        return min(seen)

    with asyncio.Runner(loop_factory=precise_loop) as runner:
        assert runner.run(late()) < 0.0006
