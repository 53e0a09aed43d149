"""A small stand-in for systemd: starts the demo's processes, restarts what dies, stops all of them in reverse order."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1


class StartFailed(Exception):
    """A service keeps dying before it has done anything; carries the end of its log."""


def _die_with_parent() -> None:
    # A demo that is killed must not leave a world of orphans behind.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@dataclass
class Service:
    name: str
    argv: list[str]
    log: Path
    restart_s: float = 0.5
    quick_deaths: int = 0
    starts: int = 0
    process: asyncio.subprocess.Process | None = None


@dataclass
class Services:
    """Runs services until its task is cancelled. `report` is told of every death and restart."""

    report: Callable[[str], None]
    env: dict[str, str] = field(default_factory=dict)
    members: dict[str, Service] = field(default_factory=dict)
    stop_order: list[str] = field(default_factory=list)

    def add(self, service: Service) -> Service:
        self.members[service.name] = service
        self.stop_order.insert(0, service.name)
        return service

    async def keep(self, service: Service) -> None:
        """Start a service and keep it running.

        Raises StartFailed when it dies five times within 3 s of its start, or when it says that its configuration is
        wrong (exit status 2): starting it again could not help.
        """
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            status = await self._once(service)
            service.quick_deaths = service.quick_deaths + 1 if loop.time() - begun < 3.0 else 0
            self.report(f"{service.name} ended with {_describe(status)}; restarting it")
            if status == 2 or service.quick_deaths >= 5:
                raise StartFailed(f"{service.name} does not stay up:\n{tail(service.log)}")
            await asyncio.sleep(service.restart_s)

    async def _once(self, service: Service) -> int:
        with _log_of(service) as log:
            service.process = await asyncio.create_subprocess_exec(
                *service.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
                preexec_fn=_die_with_parent,
            )
        service.starts += 1
        return await service.process.wait()

    async def stop(self, grace_s: float = 8.0) -> None:
        """SIGTERM in reverse order of start, all at once per step; SIGKILL for what is still there after the grace."""
        for name in self.stop_order:
            process = self.members[name].process
            if process is None or process.returncode is not None:
                continue
            process.terminate()
            try:
                async with asyncio.timeout(grace_s):
                    await process.wait()
            except TimeoutError:
                self.report(f"{name} did not stop within {grace_s:g} s and was killed")
                process.kill()
                await process.wait()


def _log_of(service: Service) -> IO[bytes]:
    service.log.parent.mkdir(parents=True, exist_ok=True)
    return open(service.log, "ab")


def tail(path: Path, lines: int = 25) -> str:
    """The end of a log, for an error message."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError as e:
        return f"(no log: {e.strerror})"


def _describe(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
