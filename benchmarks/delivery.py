"""Keys handed to recipient pairs while everything is killed: brokers, receivers, cores and uplinks of both sites.

Real processes over real sockets; only the optics have a stand-in (`benchmarks.delivery_core`). Every process is started
again when it has ended. After the last kill everything gets time to settle, is stopped, and what the two receivers have
is compared with what the blocks held.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from benchmarks.delivery_core import key_values
from benchmarks.measure import Mismatch, Progress, Result, silent
from qmodd.broker import free_port, plan_broker
from qmodd.clock import SystemClock
from qmodd.demo.compose import SERIALS, provision_site, replace_value, shipped
from qmodd.keys.records import key_id
from qmodd.randomness import SystemRandomness
from qmodd.receive import read_digests, read_states

KEYS, KEYS_PER_BLOCK, KILLS = 10_000, 250, 200
BETWEEN_KILLS_S = 0.8
SETTLE_S = 300.0
KMS = {"alice": "kms-a", "bob": "kms-b"}
USABLE = ("usable", "handed_out")


@dataclass
class Member:
    """One process that is kept running."""

    name: str
    argv: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    kills: int = 0
    starts: int = 0

    def keep(self) -> None:
        if self.process is None or self.process.poll() is not None:
            self.starts += 1
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            return False
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.kills += 1
        return True

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@dataclass
class Stage:
    """Both sites in one directory."""

    directory: Path
    keys_per_block: int
    members: dict[str, Member] = field(default_factory=dict)

    def __post_init__(self) -> None:
        provision_site(self.directory, SystemClock().utc(), SystemRandomness())
        broker = plan_broker(self.directory / "broker")
        self._add("broker", broker.argv)
        relay, python = f"127.0.0.1:{free_port()}", [sys.executable, "-m"]
        self.feed = self.directory / "blocks"
        for name, kms in KMS.items():
            config = self._module(name, broker.url, relay)
            self._add(f"{name} core", [*python, "benchmarks.delivery_core", str(config), *self._feed()])
            self._add(f"{name} uplink", [*python, "qmodd", "uplink", "--config", str(config)])
            receiver = self._receiver(name, kms, broker.url)
            self._add(kms, [*python, "qmodd", "receive", "--config", str(receiver)])

    def _feed(self) -> list[str]:
        return [str(self.feed), str(self.keys_per_block)]

    def _add(self, name: str, argv: list[str]) -> None:
        self.members[name] = Member(name, argv, self.directory / f"{name.replace(' ', '-')}.log")

    def _module(self, name: str, broker: str, relay: str) -> Path:
        text = replace_value(shipped(f"{name}.toml"), "broker", broker)
        text = replace_value(text, "relay_listen" if name == "alice" else "relay_connect", relay)
        (self.directory / name / "factory.json").write_text("{}")
        text = replace_value(text, "factory", "factory.json")
        path = self.directory / name / f"{name}.toml"
        path.write_text(text)
        return path

    def _receiver(self, module: str, kms: str, broker: str) -> Path:
        path = self.directory / f"{kms}.toml"
        path.write_text(
            f'identity = "site/{kms}.key"\nstore = "{kms}.db"\n\n[broker]\nurl = "{broker}"\n\n'
            f'[[sender]]\nserial = "{SERIALS[module]}"\npublic = "site/{SERIALS[module]}.pub"\n'
        )
        return path

    def keep(self) -> None:
        for member in self.members.values():
            member.keep()

    def stop(self) -> None:
        for member in reversed(self.members.values()):
            member.stop()

    def state_dir(self, name: str) -> Path:
        (found,) = (self.directory / name).rglob("keys.db")
        return found.parent

    def asked(self, name: str, sql: str) -> list[tuple[object, ...]]:
        """A question to a module's store, while it runs or after."""
        try:
            path = self.state_dir(name) / "keys.db"
        except ValueError:
            return []
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
        try:
            return database.execute(sql).fetchall()
        except sqlite3.OperationalError:
            return []
        finally:
            database.close()

    def at_rest(self, blocks: int) -> bool:
        """Every block is committed on both sides, and nothing is to be said about any key any more."""
        for name in KMS:
            if self.asked(name, "SELECT COUNT(*) FROM blocks") != [(blocks,)]:
                return False
            open_ = self.asked(
                name,
                "SELECT COUNT(*) FROM keys k LEFT JOIN handover h ON h.id = k.id WHERE h.id IS NULL "
                "OR NOT ((h.mine = 1 AND h.far = 1 AND h.said = 2 AND h.told = 1) OR h.done = 1)",
            )
            if open_ != [(0,)] or self.asked(name, "SELECT COUNT(*) FROM happened") != [(0,)]:
                return False
        return True


@dataclass
class Verdict:
    """What became of the keys; all but `usable` and `revoked` must be 0."""

    usable: int = 0
    revoked: int = 0
    lost: int = 0
    one_site: int = 0
    mismatched: int = 0
    duplicated: int = 0
    unsaid: int = 0

    @property
    def wrong(self) -> int:
        return self.lost + self.one_site + self.mismatched + self.duplicated + self.unsaid


def judge(
    blocks: Mapping[UUID, int],
    usable: tuple[Mapping[str, str], Mapping[str, str]],
    states: tuple[Mapping[str, str], Mapping[str, str]],
    revoked: tuple[int, int],
) -> Verdict:
    """`blocks`: keys of each; `usable`: digests by key id at both recipients; `states`: all that they know; `revoked`:
    keys that the two modules' events say are given up."""
    verdict = Verdict()
    made = {str(key_id(b, n)): v for b, keys in blocks.items() for n, v in enumerate(key_values(b, keys))}
    for name, value in made.items():
        a, b = (u.get(name) for u in usable)
        if a is None and b is None:
            gone = all(s.get(name, "revoked") == "revoked" for s in states)
            verdict.revoked, verdict.lost = verdict.revoked + gone, verdict.lost + (not gone)
        elif a is None or b is None:
            verdict.one_site += 1
        elif a == b == hashlib.sha256(value).hexdigest():
            verdict.usable += 1
        else:
            verdict.mismatched += 1
    for found in usable:
        verdict.duplicated += len(found) - len(set(found.values())) + len(found.keys() - made.keys())
    # More may be told: an entry that was told twice is counted once, one that was not told at all is missing.
    verdict.unsaid = sum(max(0, verdict.revoked - said) for said in revoked)
    return verdict


def told(events: Path, event: str) -> int:
    """Keys that the event log says this about, each entry once."""
    entries: dict[int, int] = {}
    for line in events.read_text().splitlines():
        entry = json.loads(line)
        if entry["event"] == event:
            entries[int(entry["entry"])] = int(entry["keys"])
    return sum(entries.values())


def campaign(
    directory: Path, keys: int, kills: int, seed: int, progress: Progress, per_block: int = KEYS_PER_BLOCK
) -> tuple[Verdict, Counter[str], float, float]:
    """Runs one; the verdict, kills by process, seconds of killing and of settling."""
    chance, blocks = random.Random(seed), keys // per_block
    stage = Stage(directory, per_block)
    done, begun = 0, time.monotonic()
    try:
        stage.feed.write_text("1")
        while done < kills:
            stage.keep()
            time.sleep(chance.expovariate(1.0 / BETWEEN_KILLS_S))
            if done or stage.asked("bob", "SELECT COUNT(*) FROM blocks") not in ([], [(0,)]):
                done += chance.choice(list(stage.members.values())).kill()
            stage.feed.write_text(str(min(blocks, 1 + done * blocks // max(1, kills))))
            progress(0.9 * done / kills, f"{done} kills")
            if not done and time.monotonic() - begun > SETTLE_S:
                raise Mismatch(f"delivery: no block within {SETTLE_S:g} s; logs in {directory}")
        stage.feed.write_text(str(blocks))
        killed = time.monotonic()
        while not stage.at_rest(blocks):
            stage.keep()
            time.sleep(1.0)
            progress(0.95, "settling")
            if time.monotonic() - killed > SETTLE_S:
                break
        settled = time.monotonic()
    finally:
        stage.stop()
    return _verdict(stage), _kills(stage), killed - begun, settled - killed


def _kills(stage: Stage) -> Counter[str]:
    return Counter({m.name: m.kills for m in stage.members.values()})


def _verdict(stage: Stage) -> Verdict:
    made = {UUID(bytes=bytes(u)): int(str(n)) for u, n in stage.asked(  # type: ignore[arg-type]
        "alice", "SELECT uuid, json_extract(record, '$.keys') FROM blocks"
    )}  # fmt: skip
    stores = [stage.directory / f"{kms}.db" for kms in KMS.values()]
    a, b = (read_digests(s, states=USABLE) for s in stores)
    of_a, of_b = (read_states(s) for s in stores)
    said_a, said_b = (told(stage.state_dir(name) / "events.jsonl", "key.revoked") for name in KMS)
    return judge(made, (a, b), (of_a, of_b), (said_a, said_b))


def run(progress: Progress = silent) -> Iterable[Result]:
    """10 000 keys under 200 kills. Raises Mismatch when the run itself cannot be made."""
    seed = int.from_bytes(SystemRandomness().bytes(4), "big")
    directory = Path(tempfile.mkdtemp(prefix="qmodd-delivery-"))
    verdict, kills, killing_s, settling_s = campaign(directory, KEYS, KILLS, seed, progress)
    yield result(verdict, kills, killing_s, settling_s, seed)
    if not verdict.wrong:
        shutil.rmtree(directory)


def result(verdict: Verdict, kills: Counter[str], killing_s: float, settling_s: float, seed: int) -> Result:
    return Result(
        "delivery.kills",
        float(verdict.wrong),
        "keys",
        None,
        "",
        less_is_better=True,
        detail={
            "usable_count": verdict.usable, "revoked_count": verdict.revoked, "lost_count": verdict.lost,
            "one_site_count": verdict.one_site, "mismatched_count": verdict.mismatched,
            "duplicated_count": verdict.duplicated, "unsaid_count": verdict.unsaid,
            "kills_count": float(kills.total()), "killing_s": round(killing_s, 1), "settling_s": round(settling_s, 1),
        },
        limit=0.0,
        note=f"{verdict.usable} usable at both, {verdict.revoked} revoked everywhere, after {kills.total()} SIGKILLs "
        f"({', '.join(f'{n} {k}' for n, k in sorted(kills.items()))}), seed {seed}",
    )  # fmt: skip
