"""The demo's little supervisor, with real processes that say when they are up (SIGUSR1 to their parent)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qmodd.demo.services import Service, Services, StartFailed, tail

UP = "import os, signal, sys, time; os.kill(os.getppid(), signal.SIGUSR1); "
SLEEP = UP + "signal.pause()"
NOTE = (
    "import os, signal, sys; signal.signal(signal.SIGTERM, lambda *_: (open({0!r}, 'a').write({1!r}), sys.exit(0))); "
)
STUBBORN = "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


class Supervised:
    """Services whose processes and deaths are counted; `ups` and `said` grow."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said: list[str] = []
        self.ups = 0
        self.changed = asyncio.Event()
        self.services = Services(self._report, env={"QMODD_TEST": "yes"})
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._up)

    def _up(self) -> None:
        self.ups += 1
        self.changed.set()

    def _report(self, text: str) -> None:
        self.said.append(text)
        self.changed.set()

    def add(self, name: str, code: str) -> Service:
        argv = [sys.executable, "-I", "-S", "-c", code]
        return self.services.add(Service(name, argv, self.directory / "logs" / f"{name}.log", restart_s=0.001))

    async def until_up(self, count: int) -> None:
        async with asyncio.timeout(20.0):
            while self.ups < count:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def supervised(tmp_path: Path) -> AsyncIterator[Supervised]:
    supervised = Supervised(tmp_path)
    yield supervised
    await supervised.services.stop(grace_s=0.2)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def test_killed_process_is_started_again_and_told(supervised: Supervised) -> None:
    service = supervised.add("sim", SLEEP)
    task = asyncio.create_task(supervised.services.keep(service))
    await supervised.until_up(1)
    assert service.process is not None
    os.kill(service.process.pid, signal.SIGKILL)
    await supervised.until_up(2)
    assert supervised.said == ["sim ended with signal SIGKILL; restarting it"]
    assert service.starts == 2
    await cancel(task)


async def test_wrong_configuration_is_not_tried_again(supervised: Supervised) -> None:
    service = supervised.add(
        "core", "import sys; sys.stderr.write('alice.toml: control.x = 9: too large\\n'); sys.exit(2)"
    )
    with pytest.raises(StartFailed, match=r"core does not stay up:\nalice.toml: control.x = 9: too large"):
        await supervised.services.keep(service)
    assert service.starts == 1


async def test_five_quick_deaths_are_enough(supervised: Supervised) -> None:
    service = supervised.add("uplink", "import sys; print('no broker'); sys.exit(7)")
    with pytest.raises(StartFailed, match="no broker"):
        await supervised.services.keep(service)
    assert service.starts == 5
    assert supervised.said == ["uplink ended with status 7; restarting it"] * 5


async def test_environment_and_output(supervised: Supervised) -> None:
    service = supervised.add("core", "import os, sys; print(os.environ['QMODD_TEST'], sys.stdin.read()); sys.exit(2)")
    with pytest.raises(StartFailed, match="yes"):
        await supervised.services.keep(service)


async def test_stops_in_reverse_order(supervised: Supervised) -> None:
    order = supervised.directory / "order"
    tasks = []
    for name in ("a", "b", "c"):
        service = supervised.add(name, NOTE.format(str(order), name) + SLEEP)
        tasks.append(asyncio.create_task(supervised.services.keep(service)))
    await supervised.until_up(3)
    for task in tasks:
        await cancel(task)
    await supervised.services.stop()
    assert order.read_text() == "cba"
    await supervised.services.stop()  # nothing left to stop
    assert supervised.said == []


async def test_what_does_not_stop_is_killed_and_told(supervised: Supervised) -> None:
    service = supervised.add("core", STUBBORN + SLEEP)
    task = asyncio.create_task(supervised.services.keep(service))
    await supervised.until_up(1)
    await cancel(task)
    await supervised.services.stop(grace_s=0.05)
    assert supervised.said == ["core did not stop within 0.05 s and was killed"]
    assert service.process is not None
    assert service.process.returncode == -signal.SIGKILL


def test_tail_is_the_end_or_says_that_there_is_none(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert tail(log) == "(no log: No such file or directory)"
    log.write_text("\n".join(f"line {i}" for i in range(100)))
    assert tail(log, 2) == "line 98\nline 99"
