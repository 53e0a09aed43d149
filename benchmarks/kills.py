"""Kill each process of a running demo with SIGKILL, one after the other, and watch the others and the way back.

    python -m benchmarks.kills [--only alice-core,sim]

For each process: what was said within 5 s, and the seconds until keys flow again. About eight minutes: part of
`make soak`, not of the tests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from qmodd.receive import read_digests
from qmodd.uplink.mqtt_link import BrokerSettings, LinkDown, open_link
from qmodd.uplink.topics import module_of

NAMES = {"QM-A-0001": "alice", "QM-B-0001": "bob"}
VICTIMS = (
    "bob-uplink", "alice-uplink", "kms-a", "kms-b", "broker", "alice-worker", "bob-worker", "alice-core", "bob-core",
    "alice-supervisor", "bob-supervisor", "sim",
)  # fmt: skip


def processes(run_dir: Path) -> dict[str, int]:
    """Pids of one demo's processes by name, from their command lines."""
    found: dict[str, int] = {}
    parents: dict[int, int] = {}
    lines: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
    for pid, argv in lines.items():
        text = " ".join(argv)
        if str(run_dir) not in text:
            continue
        for module in ("alice", "bob"):
            if f"{module}/{module}.toml" in text:
                kind = "supervisor" if " sim exec " in text else "uplink" if " uplink " in text else "core"
                found[f"{module}-{kind}"] = pid
        if " sim --run-dir " in text:
            found["sim"] = pid
        if "mosquitto.conf" in text or "embedded-broker" in text:
            found["broker"] = pid
        for kms in ("kms-a", "kms-b"):
            if f"{kms}.toml" in text:
                found[kms] = pid
    for pid, argv in lines.items():
        for module in ("alice", "bob"):
            if "multiprocessing.spawn" in " ".join(argv) and parents.get(pid) == found.get(f"{module}-core"):
                found[f"{module}-worker"] = pid
    return found


@dataclass
class Watch:
    """What MQTT says."""

    url: str
    state: dict[str, str] = field(default_factory=dict)
    alive: dict[str, str] = field(default_factory=dict)
    said: list[tuple[float, str]] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            try:
                async with open_link(BrokerSettings(url=self.url), f"kills-{os.getpid()}") as link:
                    await link.subscribe("qmodd/v1/+/state", "qmodd/v1/+/alive")
                    while True:
                        message = await link.next_message()
                        name = NAMES.get(module_of(message.topic) or "")
                        if name and message.payload:
                            self.note(name, message.topic.rsplit("/", 1)[1], json.loads(message.payload))
            except LinkDown:
                self.said.append((time.monotonic(), "the broker is away"))
            await asyncio.sleep(0.2)

    def note(self, name: str, kind: str, body: dict[str, object]) -> None:
        if kind == "alive":
            self.alive[name] = str(body["state"])
            self.said.append((time.monotonic(), f"{name} {body['state']}"))
            return
        activity = body["activity"]
        assert isinstance(activity, dict)
        self.state[name] = str(activity["value"])
        self.said.append((time.monotonic(), f"{name} {activity['value']}: {activity['why']}"))


def keys(run_dir: Path) -> tuple[int, int]:
    a, b = (read_digests(run_dir / f"{kms}.db", states=("usable", "handed_out")) for kms in ("kms-a", "kms-b"))
    common = a.keys() & b.keys()
    return sum(a[k] == b[k] for k in common), sum(a[k] != b[k] for k in common)


async def wait_for_keys(run_dir: Path, more_than: int, within_s: float) -> float | None:
    begun = time.monotonic()
    while time.monotonic() - begun < within_s:
        if keys(run_dir)[0] > more_than:
            return time.monotonic() - begun
        await asyncio.sleep(0.5)
    return None


def log_of(run_dir: Path) -> IO[str]:
    return open(run_dir / "demo.log", "w")


async def main(only: list[str], seed: int) -> int:
    run_dir = Path(tempfile.mkdtemp(prefix="qmodd-kills-"))
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "qmodd", "demo", "--seconds", "3600", "--run-dir", str(run_dir), "--seed", str(seed),
        stderr=log_of(run_dir), stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    bad = 0
    try:
        first = await wait_for_keys(run_dir, 0, 180)
        if first is None:
            print((run_dir / "demo.log").read_text()[-2000:])
            return 1
        print(f"keys after {first:.0f} s; run directory {run_dir}", flush=True)
        port = next(
            w.split()[1]
            for w in (run_dir / "broker" / "mosquitto.conf").read_text().splitlines()
            if w.startswith("listener ")
        )
        watch = Watch(f"mqtt://127.0.0.1:{port}")
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(watch.run())
            await asyncio.sleep(3)
            for victim in only:
                bad += not await one(victim, run_dir, watch)
            watcher.cancel()
    finally:
        if demo.returncode is None:
            demo.send_signal(signal.SIGTERM)
            await demo.wait()
    print(f"{len(only) - bad} passed, {bad} failed; mismatched keys {keys(run_dir)[1]}")
    return 1 if bad else 0


async def one(victim: str, run_dir: Path, watch: Watch) -> bool:
    pid = processes(run_dir).get(victim)
    if pid is None:
        print(f"{victim}: not running")
        return False
    before, killed = keys(run_dir)[0], time.monotonic()
    os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(5.0)
    heard = [f"+{t - killed:.1f} s {text}" for t, text in watch.said if t > killed]
    # Keys that were distilled before the kill may still arrive: count from 5 s after it.
    back = await wait_for_keys(run_dir, max(before, keys(run_dir)[0]), 150)
    both = all(watch.state.get(n) == "keying" for n in NAMES.values())
    print(f"{victim:17} back to keys {'never' if back is None else f'{back + 5:.0f} s'}; mismatched {keys(run_dir)[1]}")
    for line in heard[:8]:
        print(f"                  {line[:170]}")
    sys.stdout.flush()
    await asyncio.sleep(3.0)
    return back is not None and (both or back is not None)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--only", default=",".join(VICTIMS))
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    sys.exit(asyncio.run(main(a.only.split(","), a.seed)))
