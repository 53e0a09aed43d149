"""`qmodd safe-outputs`: every output of a module to its safe value, without the daemon and whatever became of it.

The system's manager runs it whenever core has ended. Where core could still act there is nothing left to do; where it
could not, the hardware watchdog has dropped the rails of laser and heaters, and this does what is left: biases, drives,
detectors, shutters. It needs the configuration and the buses, and neither keys nor credentials.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qmodd.clock import Clock
    from qmodd.config import Config
    from qmodd.module import Module

DONE, NOT_SAFE, WRONG, UNREACHABLE = 0, 1, 2, 3
OPEN_S, SAFE_S = 3.0, 0.8
LONGEST = 480


@dataclass
class Darkness:
    """What became of the outputs, by the device's name: `unconfirmed` could not be brought to its safe value, `on`
    reads on all the same, `silent` could not be asked."""

    outputs: list[str] = field(default_factory=list)
    unconfirmed: dict[str, str] = field(default_factory=dict)
    on: dict[str, str] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    tec: str = ""

    @property
    def status(self) -> int:
        """Exit status: 1 something reads on, 3 something could not be reached."""
        return NOT_SAFE if self.on else UNREACHABLE if self.unconfirmed or self.silent else DONE

    def told(self) -> dict[str, Any]:
        faults = {**self.silent, **self.unconfirmed, **self.on}
        outputs = {name: faults.get(name, "safe") for name in self.outputs}
        aside = {name: why for name, why in faults.items() if name not in outputs}
        return {"ok": self.status == DONE, "outputs": outputs, "not_confirmed": aside, "tec": self.tec}


async def make_dark(module: Module) -> Darkness:
    """Opens what it can, rails off first, every output to its safe value, then asks the witnesses; closes everything.

    Never raises for a device: what fails is in the result.
    """
    from qmodd.safety import contradictions, safe_state

    outputs = list(module.outputs())
    found = Darkness([d.name for d in outputs])
    try:
        await _open(module, found)
        await safe_state(module.platform, outputs, found.unconfirmed.__setitem__, SAFE_S)
        found.on, found.silent = await contradictions(module)
        found.tec = await _leave_tec(module)
    finally:
        await module.close()
    return found


async def _open(module: Module, found: Darkness) -> None:
    """One by one rather than by `Module.open`, which gives up where the platform does not answer."""
    from drivers.errors import DriverError

    async def one(role: str) -> None:
        device = module.devices[role]
        try:
            async with asyncio.timeout(OPEN_S):
                await device.open()
        except (DriverError, TimeoutError) as e:
            found.unconfirmed[device.name] = f"cannot be opened: {str(e) or 'no answer in time'}"

    await one("platform")
    wanted = {device.name for device in module.outputs()} | {module.devices["rail"].name}
    async with asyncio.TaskGroup() as group:
        for role, device in module.devices.items():
            if device.name in wanted:
                group.create_task(one(role), name=f"open {role}")


async def _leave_tec(module: Module) -> str:
    """Nobody will ramp it down: its own communication watchdog does, and where that is off or slow it goes off now."""
    from drivers.errors import DriverError
    from qmodd.app.safekeeping import WATCHDOG_MOST_S

    patience_s = float(module.config.by_role("tec").options.get("watchdog_s", 0.0))
    if 0.0 < patience_s <= WATCHDOG_MOST_S:
        return f"held; taken down by its own watchdog within {patience_s:g} s and its ramp"
    try:
        async with asyncio.timeout(SAFE_S):
            await module.tec.enable(False)
    except (DriverError, TimeoutError) as e:
        return f"could not be switched off: {str(e) or 'no answer in time'}"
    return "switched off"


def how_core_ended(environ: Mapping[str, str]) -> str | None:
    """As systemd tells a unit's ExecStopPost= command; None: it ended as it should have."""
    result = environ.get("SERVICE_RESULT", "")
    if result == "success":
        return None
    if not result:
        return "asked for by hand"
    return f"core ended: {result}, {environ.get('EXIT_CODE', '')} {environ.get('EXIT_STATUS', '')}".strip()


def keep(config: Config, clock: Clock, found: Darkness, why: str | None) -> None:
    """What the next core and the NOC have to know: a latch for an output that reads on, and an event.

    A disk that takes neither is said and changes nothing of the outputs.
    """
    from qmodd.app.safekeeping import NOT_SAFE as LATCH
    from qmodd.events import EventLog
    from qmodd.outbox import Outbox, OutboxDamaged
    from qmodd.safety.latches import FILE, Latch, LatchStore
    from qmodd.safety.monitor import set_latch

    if why is None and found.status == DONE:
        return
    state_dir = config.module.state_dir
    try:
        with ExitStack() as stack:
            events = EventLog(state_dir / "events.jsonl", clock, config.module.serial)
            stack.callback(events.close)
            outbox = Outbox(state_dir / "outbox.db")
            stack.callback(outbox.close)
            events.listeners.append(_publisher(outbox))
            if found.on:
                cause = "; ".join(found.on.values())[:LONGEST]
                at = clock.utc().isoformat(timespec="milliseconds")
                set_latch(LatchStore(state_dir / FILE), Latch(LATCH, cause, at), events.record)
            events.record("outputs.made_safe", _fields(found, why or "core ended as it should"))
    except (OSError, ValueError, sqlite3.Error, OutboxDamaged) as e:
        _say(f"this could not be recorded: {e}")


def _publisher(outbox: Any) -> Callable[[dict[str, Any]], None]:
    from qmodd.messages import Event

    return lambda entry: outbox.put("event", Event.from_entry(entry).payload(), kind="event")


def _fields(found: Darkness, why: str) -> dict[str, str | int | float | bool | None]:
    faults = {**found.silent, **found.unconfirmed, **found.on}
    # Every name; the reasons in full are in the log.
    share = LONGEST // max(1, len(faults)) - 2
    not_safe = "; ".join(f"{name}: {what}"[:share] for name, what in sorted(faults.items()))
    return {"why": why, "ok": found.status == DONE, "not_safe": not_safe[:LONGEST]}


def add_parser(subparsers: Any) -> None:
    p = subparsers.add_parser(
        "safe-outputs",
        help="every output to its safe value, without the daemon",
        description="Brings every output of the module to its safe value and asks the hardware whether it is dark. Run "
        "by the service whenever core has ended; refused while core runs, which has the outputs then.",
        epilog="example: qmodd safe-outputs --config /etc/qmodd/module.toml",
    )
    p.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML file of the module")
    p.add_argument("--json", action="store_true", help="one JSON object as the last line on stdout")
    p.set_defaults(run=command)


def command(args: argparse.Namespace) -> int:
    """Exit status: 0 dark, 1 core runs or something reads on, 2 wrong configuration, 3 something not reachable."""
    from qmodd.clock import SystemClock
    from qmodd.config import ConfigError, load
    from qmodd.daemon import check_drivers

    try:
        config = load(args.config, "none", given=False)
        check_drivers(config, args.config)
    except ConfigError as e:
        _say(str(e))
        return WRONG
    with ExitStack() as stack:
        try:
            _alone(stack, config)
        except ConfigError as e:
            _say(f"{e}, and has the outputs; stop it first")
            return NOT_SAFE
        clock = SystemClock()
        found = asyncio.run(_run(config, clock))
        keep(config, clock, found, how_core_ended(os.environ))
    show(config.module.serial, found, args.json)
    return found.status


def _alone(stack: ExitStack, config: Config) -> None:
    """Holds core's lock. Raises ConfigError where a core has it; a disk that gives no lock is no reason to stay lit."""
    from qmodd.daemon import only_core

    try:
        stack.enter_context(only_core(config.module.state_dir))
    except OSError as e:
        _say(f"core's lock cannot be had ({e}); going on without it")


async def _run(config: Config, clock: Clock) -> Darkness:
    from drivers.bus.pool import BusPool
    from drivers.bus.real import real_libraries
    from qmodd.module import Module

    return await make_dark(Module(config, BusPool(real_libraries(), clock.monotonic)))


def show(serial: str, found: Darkness, as_json: bool) -> None:
    told = found.told()
    for name, what in {**told["outputs"], **told["not_confirmed"]}.items():
        _say(f"{name}: {what}")
    _say(f"tec: {found.tec}")
    if as_json:
        sys.stdout.write(json.dumps({"serial": serial, **told}) + "\n")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
