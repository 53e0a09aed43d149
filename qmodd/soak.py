"""`qmodd soak`: alice, bob and the emulator in one process on a clock that jumps. One seed, one event log.

The same applications, drivers, chips and world as in the demo; only transports are in memory and kernels run in place.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from drivers.bus.libraries import Libraries
from qmodd.app.core import Core, Injected
from qmodd.clock import LoopClock, SystemClock
from qmodd.config import Config, validate
from qmodd.demo.compose import SERIALS, provision_site, shipped
from qmodd.door_core import DoorCore
from qmodd.identity import Recipient, SignerPublic
from qmodd.keys.kernels import InlineKernels
from qmodd.provision import SITE
from qmodd.randomness import SeededRandomness
from qmodd.receive import Receiver
from qmodd.uplink.memory import MemoryUplink
from sim.clock import CallbackClock
from sim.individuals import factory_record
from sim.inproc import InprocLibraries
from sim.loop import SimulatedLoop
from sim.rig import build_rigs
from sim.scenario import Scenario, ScenarioError
from sim.truth import Truth
from sim.world import World

DAY_S = 86_400.0
CHANNEL_LATENCY_S = 0.002
# Random by construction, or a digest of something that is: kept out of the log that two runs are compared by.
RANDOM_FIELDS = frozenset({"uuid", "block_uuid", "id", "epoch", "signature", "digest"})
# What differs from the shipped configuration: the strobe makes a second cost little, so batches and loops are longer.
STROBE = {
    "gate_open_ps": 800_000,
    "gate_period_ps": 80_000_000,
    "batch_s": 1.0,
    "sync_s": 5.0,
    "phase_period_s": 5.0,
    "slow_period_s": 5.0,
    "watchdog_period_s": 0.25,
    "telemetry_period_s": 10.0,
    "worker": False,
}


@dataclass
class Site:
    """One module of a run in simulated time and its receiver."""

    name: str
    core: Core
    receiver: Receiver


@dataclass
class Run:
    """A pair in one process. Tests use it too: `sites`, `world`, `rigs`, `uplink` are open to them."""

    loop: SimulatedLoop
    directory: Path
    scenario: Scenario
    seed: int
    settings: dict[str, Any] = field(default_factory=lambda: dict(STROBE))
    published: Callable[[str, str, bytes], None] = lambda _module, _suffix, _payload: None

    final_states: dict[str, str] = field(default_factory=dict)
    ended_s: float = 0.0

    def __post_init__(self) -> None:
        self.clock = LoopClock(self.loop)
        simulated = CallbackClock(self.loop.time)
        self.world = World(self.scenario, simulated)
        self.rigs = build_rigs(self.world, simulated)
        provision_site(self.directory, self.clock.utc(), SeededRandomness(self.seed + 1))
        self.sites = {name: self._site(name) for name in ("alice", "bob")}
        self.uplink = MemoryUplink(
            self.sites["alice"].core.door,
            self.sites["bob"].core.door,
            CHANNEL_LATENCY_S,
            receivers={(SERIALS[s.name], f"kms-{s.name[0]}"): s.receiver.process for s in self.sites.values()},
            notices={(SERIALS[s.name], f"kms-{s.name[0]}"): s.receiver.notice for s in self.sites.values()},
            on_publish=self._published,
        )
        self.truth = Truth(self.world)

    def _published(self, module: str, suffix: str, payload: bytes) -> None:
        self.published(module, suffix, payload)

    def _site(self, name: str) -> Site:
        port = self.world.alice if name == "alice" else self.world.bob
        factory = self.directory / name / "factory.json"
        factory.write_text(json.dumps(factory_record(port.individual, self.scenario.seed)))
        config = self._config(name)
        found = InprocLibraries(self.rigs[name])
        libraries = Libraries(found.i2c, found.spi, found.serial, found.visa, found.tcp, threaded=False)
        randomness = SeededRandomness(self.seed * 2 + (name == "bob"))
        injected = Injected(
            libraries,
            self.clock,
            randomness,
            InlineKernels(randomness),
            door=DoorCore,
            serve_door=lambda door: door.serve_requests(),
            threads=False,
            durable=False,
            heartbeat_s=1.0,
        )
        keys = self.directory / SITE
        kms = Recipient.load(keys / f"kms-{name[0]}.key")
        module = SignerPublic.load(keys / f"{SERIALS[name]}.pub")
        receiver = Receiver(self.directory / f"kms-{name[0]}.db", kms, {SERIALS[name]: module.key}, self.clock)
        return Site(name, Core(config, injected), receiver)

    def _config(self, name: str) -> Config:
        raw = tomllib.loads(shipped(f"{name}.toml"))
        for section in raw.values():
            if isinstance(section, dict):
                section.update({k: v for k, v in self.settings.items() if k in section})
        in_process = {
            "tec": "serial:tec",
            "laser": "serial:laser",
            "symbol_source": "visa:source",
            "time_tagger": "visa:tagger",
            "detectors": "tcp:snspd:12000",
            "counter": "visa:counter",
            "cryostat": "visa:cryostat",
        }
        for device in raw["device"]:
            device["address"] = in_process.get(device["name"], device["address"])
            if device["name"] == "detectors":
                device["options"]["counts_address"] = "tcp:snspd:12345"
        return validate(raw, self.directory / name / f"{name}.toml")

    async def for_seconds(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Run the pair; ends early when `until` says so, asked once a simulated second."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(s.core.run(), name=s.name) for s in self.sites.values()]
            tasks.append(group.create_task(self.uplink.run(), name="uplink"))
            tasks.append(group.create_task(self.tick(), name="rigs"))
            end = self.loop.time() + seconds
            while self.loop.time() < end and not until():
                await asyncio.sleep(1.0)
            self.final_states = {
                s.name: f"{s.core.life.activity}: {s.core.life.why('activity')}" for s in self.sites.values()
            }
            self.ended_s = self.loop.time()
            for task in tasks:
                task.cancel()

    def close(self) -> None:
        for site in self.sites.values():
            site.core.close()
            site.receiver.close()

    async def tick(self) -> None:
        """What the electronics do by themselves: the hardware watchdog, slow commands."""
        while True:
            for rig in self.rigs.values():
                rig.tick()
            await asyncio.sleep(0.1)

    def event_log(self) -> list[str]:
        """Both modules' events in order, without what is random by construction."""
        entries = [e for s in self.sites.values() for e in s.core.events.entries]
        entries.sort(key=lambda e: (str(e["t"]), str(e["module"]), int(str(e["seq"]))))
        return [json.dumps({k: v for k, v in e.items() if k not in RANDOM_FIELDS}, sort_keys=True) for e in entries]

    def report(self, days: float, wall_s: float) -> dict[str, Any]:
        alice, bob = (self.sites[n] for n in ("alice", "bob"))
        blocks = [e for e in bob.core.events.entries if e["event"] == "block.kept"]
        totals = {s.name: s.core.store.totals() for s in (alice, bob)}
        digests = {s.name: s.receiver.digests() for s in (alice, bob)}
        common = digests["alice"].keys() & digests["bob"].keys()
        mismatched = [i for i in common if digests["alice"][i] != digests["bob"][i]]
        log = self.event_log()
        seconds = days * DAY_S
        created = min(totals["alice"]["created"], totals["bob"]["created"])
        entries = {s.name: s.core.events.entries for s in (alice, bob)}
        invariants = {
            "keys of both sites match": not mismatched,
            "keys conserved at alice": alice.core.store.audit() is None,
            "keys conserved at bob": bob.core.store.audit() is None,
            "both sides created the same keys": totals["alice"]["created"] == totals["bob"]["created"],
        }
        n_z = sum(int(str(b["n_z"])) for b in blocks)
        return {
            "days": days,
            "wall_s": round(wall_s, 3),
            "speedup": round(seconds / wall_s, 1),
            "availability": round(availability(entries["alice"], entries["bob"], self.ended_s), 4),
            "lock": lock_ledger(entries["bob"], self.ended_s),
            "manual_actions": sum(e["event"] == "request.accepted" for log in entries.values() for e in log),
            "skr_bps": round(sum(int(str(b["key_bits"])) for b in blocks) / seconds, 3),
            "qber_z": round(sum(float(str(b["qber_z"])) * int(str(b["n_z"])) for b in blocks) / n_z, 6)
            if n_z
            else None,
            "blocks": len(blocks),
            "keys_created": created,
            "keys_delivered": len(common),
            "keys_lost": 0 if not mismatched else len(mismatched),
            "final_states": self.final_states,
            "events": len(log),
            "event_log_sha256": hashlib.sha256("\n".join(log).encode()).hexdigest(),
            "invariants": invariants,
        }


Entry = dict[str, Any]


def spans(entries: Sequence[Entry], event: str, name: str, value: str, ended_s: float) -> list[tuple[float, float]]:
    """Seconds from and to of every stretch in which `event` last said `name` = `value`."""
    out: list[tuple[float, float]] = []
    since: float | None = None
    for e in (e for e in entries if e["event"] == event):
        at = (datetime.fromisoformat(str(e["t"])) - LoopClock.epoch).total_seconds()
        if e[name] == value:
            since = at if since is None else since
        elif since is not None:
            out.append((since, at))
            since = None
    return out if since is None else [*out, (since, ended_s)]


def availability(alice: Sequence[Entry], bob: Sequence[Entry], ended_s: float) -> float:
    """Share of the whole run, the cold start included, in which both modules were keying."""
    a, b = (spans(log, "state.activity", "value", "keying", ended_s) for log in (alice, bob))
    both = sum(max(0.0, min(x[1], y[1]) - max(x[0], y[0])) for x in a for y in b)
    return both / ended_s if ended_s else 0.0


def lock_ledger(bob: Sequence[Entry], ended_s: float) -> dict[str, float | int | None]:
    """Of the interferometer: share of the time since the first lock, losses, seconds to lock again (99 %)."""
    locked = spans(bob, "phase.stage", "stage", "locked", ended_s)
    if not locked:
        return {"uptime": 0.0, "losses": 0, "relock_s_p99": None}
    held = sum(b - a for a, b in locked)
    gaps = [after[0] - before[1] for before, after in pairwise(locked)]
    return {
        "uptime": round(held / (ended_s - locked[0][0]), 4) if ended_s > locked[0][0] else 0.0,
        "losses": sum(b < ended_s for _, b in locked),
        "relock_s_p99": round(float(np.percentile(gaps, 99)), 1) if gaps else None,
    }


def soak(days: float, seed: int, directory: Path, scenario: Scenario | None = None) -> tuple[Run, dict[str, Any]]:
    """Run a pair for `days` of simulated time. The scenario's seed is replaced by `seed`."""
    wall = SystemClock()
    start = wall.monotonic()
    loop = SimulatedLoop()
    chosen = (scenario or Scenario()).model_copy(update={"seed": seed})
    with asyncio.Runner(loop_factory=lambda: loop) as runner:

        async def main() -> Run:
            run = Run(loop, directory, chosen, seed)
            await run.for_seconds(days * DAY_S)
            return run

        run = runner.run(main())
    return run, run.report(days, wall.monotonic() - start)


def add_parser(subparsers: Any) -> None:
    p = subparsers.add_parser(
        "soak",
        help="a pair in simulated time",
        description="Runs alice, bob and the emulator in one process, as fast as it computes.",
        epilog="example: qmodd soak --days 0.02 --seed 1 --json",
    )
    p.add_argument("--days", type=float, default=0.02, help="simulated days (default 0.02)")
    p.add_argument("--seed", type=int, default=1, help="individuals, drifts and all randomness (default 1)")
    p.add_argument("--scenario", type=Path, help="scenario TOML (default: the demo pair)")
    p.add_argument("--events", type=Path, help="write the event log here")
    p.add_argument("--json", action="store_true", help="one JSON object on stdout")
    p.set_defaults(run=command)


def command(args: argparse.Namespace) -> int:
    try:
        scenario = Scenario.from_toml(args.scenario) if args.scenario else None
    except ScenarioError as e:
        sys.stderr.write(f"{e}\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="qmodd-soak-") as directory:
        run, report = soak(args.days, args.seed, Path(directory), scenario)
        if args.events:
            args.events.write_text("\n".join(run.event_log()) + "\n")
        run.close()
    for name, value in report.items():
        sys.stderr.write(f"{name:20} {value}\n")
    if args.json:
        sys.stdout.write(json.dumps(report) + "\n")
    ok = all(report["invariants"].values()) and report["keys_delivered"] > 0
    return 0 if ok else 1
