"""A hostile client with a viewer's certificate against a real broker, uplink and core.

First with the shipped rules of the broker, which let none of its requests through. Then with rules that let everything
through, so that what core does by itself is seen. Its own requests and an operator's that it has caught, replayed,
retained, expired, cut, oversized, wrong-typed, and 100 000 fuzzed ones. None may take effect; each is answered, or
dropped and counted; loops keep their period, memory does not grow.
"""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.hostile_requests import Attacker, caught, own, wrong_typed
from benchmarks.measure import Mismatch, Progress, Result, silent
from benchmarks.mqtt_rig import MODULE, ROOT, Module, faults_in_words, module, usage
from qmodd.broker import BrokerHandle, plan_configured, start_planned
from qmodd.broker_site import LAB, VIEWERS
from qmodd.clock import SystemClock
from qmodd.demo.compose import provision_site, shipped
from qmodd.identity import ClientFiles
from qmodd.messages import Reply
from qmodd.pki import Pki
from qmodd.randomness import SystemRandomness
from qmodd.requests import ROLES
from qmodd.uplink.mqtt_link import BrokerSettings, open_link

FUZZED = 100_000
QUIET_S = 20.0
PERIOD_LIMIT_PERCENT = 1.0
GROWTH_LIMIT_MB = 8.0
# A loop that ran less often says nothing about its lateness.
RUNS_LEAST = 5
# Told to the broker in place of its rules: whoever has a certificate may do everything.
NO_RULES = "topic readwrite qmodd/#\npattern readwrite qmodd/#\n"
# The broker and the hostile client stand for other machines: they must not take the module's processor away.
LOWEST = ("nice", "-n", "19")
SETTING = "set/control.phase_limit_deg"
READ_ONLY = {t.removeprefix("command/") for t in VIEWERS}
HARMFUL = sorted({c for c in ROLES if c not in READ_ONLY} | {SETTING})


@dataclass
class Tally:
    """What was sent by kind, what the broker refused, which answers came."""

    sent: Counter[str] = field(default_factory=Counter)
    stopped: int = 0
    passed: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    carried_out: list[str] = field(default_factory=list)


def run(progress: Progress = silent, *, count: int = FUZZED, quiet_s: float = QUIET_S) -> Iterable[Result]:
    """Raises Mismatch."""
    with tempfile.TemporaryDirectory(prefix="qmodd-hostile-") as directory:
        return asyncio.run(faults_in_words(_run(Path(directory), count, quiet_s, progress)))


@dataclass
class Scene:
    """The running module, the broker with its rules, and who is there."""

    found: Module
    broker: BrokerHandle
    pki: Path
    tally: Tally
    # An operator's request that was carried out: its topic and itself.
    used: tuple[str, bytes] = ("", b"")

    def settings(self, name: str) -> BrokerSettings:
        return settings(self.pki, f"clients/{name}", self.broker.url)

    def attacker(self, name: str) -> Attacker:
        return Attacker(ClientFiles.load(self.pki / "clients" / name), MODULE, self.found.said.epoch)


def settings(pki: Path, directory: str, url: str) -> BrokerSettings:
    return BrokerSettings(
        url=url, ca=pki / "ca" / "ca.pem", certificate=pki / directory / "tls.pem", key=pki / directory / "tls.key"
    )


async def _run(directory: Path, count: int, quiet_s: float, progress: Progress) -> list[Result]:
    provision_site(directory, SystemClock().utc(), SystemRandomness())
    pki = directory / "pki"
    Pki(LAB, pki, SystemClock().utc(), timedelta(days=2)).run(directory / "site" / "authority.key")
    values = {"cafile": "ca/ca.pem", "certfile": "broker/tls.pem", "keyfile": "broker/tls.key", "acl_file": "acl"}
    (directory / "conf.d").mkdir()
    plan = plan_configured(
        directory / "broker",
        shipped("mosquitto/mosquitto.conf"),
        {**{k: str(pki / v) for k, v in values.items()}, "include_dir": str(directory / "conf.d")},
    )
    broker = await start_planned(replace(plan, argv=[*LOWEST, *plan.argv]), directory / "broker")
    try:
        viewer = settings(pki, "clients/telegraf", broker.url)
        uplink = settings(pki, f"modules/{MODULE}", broker.url)
        progress(0.0, "a module starts")
        async with module(directory, viewer, uplink, {"upkeep_period_s": "3600.0"}) as found:
            await found.said.until(lambda: found.said.activity().startswith("ready: offline"), "ready, without a peer")
            return await _attack(Scene(found, broker, pki, Tally()), count, quiet_s, progress)
    finally:
        broker.stop()


async def _attack(scene: Scene, count: int, quiet_s: float, progress: Progress) -> list[Result]:
    found, tally = scene.found, scene.tally
    progress(0.2, "as it is without an attack")
    first = await found.said.again("telemetry/loops")
    await asyncio.sleep(quiet_s)
    second = await found.said.again("telemetry/loops")
    calm, before, state = usage(found.core), len(found.events()), told(found)

    progress(0.4, "every command, with the broker's rules")
    stopped, all_own = await behind_the_rules(scene)
    (scene.pki / "acl").write_text(NO_RULES)
    scene.broker.process.send_signal(signal.SIGHUP)

    progress(0.5, "every command, replayed, retained, expired, truncated, oversized, wrong-typed")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_answers(scene, name)) for name in ("viewer", "operator")]
        try:
            known = await one_by_one(scene)
            begun = await found.said.again("telemetry/loops")
            progress(0.7, f"{count} fuzzed requests")
            await flood(scene, count)
            ended = await found.said.again("telemetry/loops")
            await asyncio.sleep(2.0)
        finally:
            for task in tasks:
                task.cancel()
    events = found.events()[before:]
    accepted = accepted_by(events)
    faults = [*effects(accepted, state, told(found)), *tally.carried_out, *known]
    if stopped != all_own:
        faults.append(f"the broker let {all_own - stopped} of {all_own} requests of a viewer through")
    return [
        _effects(tally, faults, events, stopped),
        _period(first, second, begun, ended),
        _growth(calm.rss_mb, usage(found.core).rss_mb, usage(found.uplink).rss_mb),
    ]


def told(found: Module) -> dict[str, Any]:
    """The life cycle without its times and texts: what a request could have changed."""
    state = found.said.newest["state"]
    words = {n: state[n]["value"] for n in ("administrative", "operational")}
    return {**words, "latches": state.get("latches"), "owners": state.get("owners")}


def accepted_by(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(str(e["client"]), str(e["command"])) for e in events if e["event"] == "request.accepted"]


def effects(accepted: list[tuple[str, str]], before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What a hostile request has brought about; the operator's own `stop` is no part of it."""
    out = [f"{who} was let do {what}" for who, what in accepted if who == "viewer" and what not in READ_ONLY]
    if (n := accepted.count(("operator", "stop"))) != 1:
        out.append(f"`stop` of the operator was carried out {n} times")
    return out + [f"{name}: {before[name]} became {after[name]}" for name in before if before[name] != after[name]]


# sending


async def behind_the_rules(scene: Scene) -> tuple[int, int]:
    """How many of a viewer's requests the broker refused, and how many there were."""
    viewer = scene.attacker("viewer")
    refused = 0
    async with open_link(scene.settings("viewer"), "hostile") as link:
        for command in HARMFUL:
            refused += await link.publish(viewer.topic(command), viewer.request(command)) >= 0x80
    return refused, len(HARMFUL)


async def one_by_one(scene: Scene) -> list[str]:
    """Those with a known refusal, in a pace at which core reads each. Returns what was not refused as it must be."""
    viewer, operator = scene.attacker("viewer"), scene.attacker("operator")
    used = operator.request("stop")
    scene.used = (operator.topic("stop"), used)
    async with open_link(scene.settings("operator"), "owner") as link:
        await link.publish(operator.topic("stop"), used)
    attempts = [
        *own(viewer, HARMFUL),
        *(viewer.attempt("read-only", c) for c in sorted(READ_ONLY)),
        *caught(operator, used, "stop"),
        *wrong_typed(operator, "stop"),
    ]
    before = len(scene.found.events())
    async with open_link(scene.settings("viewer"), "hostile") as link:
        for attempt in attempts:
            scene.tally.sent[attempt.kind] += 1
            await link.publish(attempt.topic, attempt.payload, retain=attempt.retain)
            await asyncio.sleep(0.055)
    await asyncio.sleep(1.0)
    codes = Counter(str(e.get("code")) for e in scene.found.events()[before:] if e["event"] == "request.refused")
    wanted = Counter(a.refusal for a in attempts if a.refusal)
    return [f"{n} refused as {code!r}; {wanted[code]} should be" for code, n in codes.items() if n < wanted[code]] + [
        f"none refused as {code!r}" for code in wanted if code not in codes
    ]


async def flood(scene: Scene, count: int) -> None:
    """As fast as the broker takes them, from a process of its own."""
    viewer = scene.attacker("viewer")
    seeds = [(viewer.topic(c), viewer.request(c)) for c in HARMFUL] + [scene.used] * 5
    file = scene.pki / "seeds.json"
    file.write_text(json.dumps([(topic, base64.b64encode(request).decode()) for topic, request in seeds]))
    process = await asyncio.create_subprocess_exec(
        *LOWEST, sys.executable, "-m", "benchmarks.hostile_flood",
        scene.broker.url, str(scene.pki), str(file), str(count),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Mismatch(f"the flood ended with status {process.returncode}")
    scene.tally.sent["fuzzed"] += int(out)


async def _answers(scene: Scene, name: str) -> None:
    """Counts answers by code; one that says that something was done is a fault, but for what viewers may."""
    async with open_link(scene.settings(name), f"ear-{name}") as link:
        await link.subscribe(f"{ROOT}reply/{name}")
        while True:
            message = await link.next_message()
            body = json.loads(message.payload)
            if "progress" in body:
                continue
            reply = Reply.model_validate(body)
            scene.tally.answers["ok" if reply.error is None else reply.error.code] += 1


# what comes out


def _effects(tally: Tally, faults: list[str], events: list[dict[str, Any]], stopped: int) -> Result:
    names = Counter(str(e["event"]) for e in events)
    dropped = [int(str(e.get("why", "0")).split()[0]) for e in events if e["event"] == "request.dropped"]
    shown = ", ".join(f"{n} {kind}" for kind, n in sorted(tally.sent.items()))
    return Result(
        "hostile, effects",
        float(len(faults)),
        "requests",
        None,
        "",
        less_is_better=True,
        limit=0.0,
        detail={
            "sent_count": float(sum(tally.sent.values())),
            "stopped_by_broker_count": float(stopped),
            "audited_count": float(names["request.refused"]),
            "dropped_at_least_count": float(max(dropped, default=0)),
            "answered_count": float(sum(tally.answers.values())),
        },
        note="; ".join(faults[:5]) or shown,
    )


def _period(first: dict[str, Any], second: dict[str, Any], begun: dict[str, Any], ended: dict[str, Any]) -> Result:
    """How much more of its period a loop was late (rms) while it was flooded than before, the worst loop, per cent."""
    loops = [n for n, runs in _runs(begun, ended).items() if runs >= RUNS_LEAST and n in _runs(first, second)]
    if not loops:
        raise Mismatch(f"{ended['t'] - begun['t']:.1f} s of flood are too short to see a loop's period")
    calm = {n: late_between(first, second, n) for n in loops}
    flooded = {n: late_between(begun, ended, n) for n in loops}
    more = {n: 100 * max(0.0, flooded[n] - calm[n]) / ended[f"{n}_period_s"] for n in loops}
    worst = max(more, key=lambda n: more[n])
    return Result(
        "hostile, period",
        more[worst],
        "% later",
        None,
        "",
        less_is_better=True,
        limit=PERIOD_LIMIT_PERCENT,
        detail={
            "flooded_s": ended["t"] - begun["t"],
            "late_rms_calm_ms": 1e3 * max(calm.values()),
            "late_rms_flooded_ms": 1e3 * max(flooded.values()),
            "overruns_count": float(sum(ended[f"{n}_overruns_count"] - begun[f"{n}_overruns_count"] for n in loops)),
            "loops_count": float(len(loops)),
        },
        note=f"worst: {worst}",
    )


def _runs(a: dict[str, Any], b: dict[str, Any]) -> dict[str, int]:
    """Of each loop between two telemetries."""
    return {n.removesuffix("_runs_count"): b[n] - a[n] for n in b if n.endswith("_runs_count") and n in a}


def late_between(a: dict[str, Any], b: dict[str, Any], name: str) -> float:
    """Rms lateness between the two, s, from those since start."""
    runs = [x[f"{name}_runs_count"] for x in (a, b)]
    squares = [x[f"{name}_late_rms_s"] ** 2 * n for x, n in zip((a, b), runs, strict=True)]
    return float((max(0.0, squares[1] - squares[0]) / max(1, runs[1] - runs[0])) ** 0.5)


def _growth(before_mb: float, after_mb: float, uplink_mb: float) -> Result:
    return Result(
        "hostile, memory",
        after_mb - before_mb,
        "MB grown",
        None,
        "",
        less_is_better=True,
        limit=GROWTH_LIMIT_MB,
        detail={"core_rss_mb": after_mb, "uplink_rss_mb": uplink_mb},
        note="core, resident",
    )
