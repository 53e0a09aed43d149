"""The network's side: round trip of a command, a fleet's telemetry through one broker, and what an idle module costs.

Real processes on this host: Mosquitto, and one module as in the demo (emulator, core without worker, uplink).
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Mismatch, Progress, Result, silent
from benchmarks.mqtt_away import AWAY_S, broker_away
from benchmarks.mqtt_peers import VALUES
from benchmarks.mqtt_rig import MODULE, ROOT, Module, Usage, faults_in_words, module, percentile, usage
from qmodd.broker import BrokerHandle, start_broker
from qmodd.clock import SystemClock
from qmodd.ctl import make_request
from qmodd.identity import ClientFiles
from qmodd.messages import Reply
from qmodd.randomness import SystemRandomness
from qmodd.uplink.mqtt_link import BrokerSettings, Link, open_link

ROUND_TRIP_LIMIT_MS = 20.0
CPU_LIMIT_PERCENT = 5.0
MEMORY_LIMIT_MB = 150.0
ROUND_TRIPS = 150
# Slower than uplink lets requests through, so that its limit is no part of what is measured.
PAUSE_S = 0.055
FLEET, FLEET_S = 200, 20.0
IDLE_S = 30.0
SETTLE_S = 15.0


@dataclass(frozen=True)
class Sizes:
    round_trips: int = ROUND_TRIPS
    fleet: int = FLEET
    fleet_s: float = FLEET_S
    idle_s: float = IDLE_S
    settle_s: float = SETTLE_S
    away_s: float = AWAY_S


def run(progress: Progress = silent, *, sizes: Sizes = Sizes()) -> Iterable[Result]:
    """Raises Mismatch."""
    with tempfile.TemporaryDirectory(prefix="qmodd-mqtt-") as directory:
        return asyncio.run(faults_in_words(_run(Path(directory), sizes, progress)))


async def _run(directory: Path, sizes: Sizes, progress: Progress) -> list[Result]:
    broker = await start_broker(directory / "broker", embedded=False)
    try:
        progress(0.0, f"{sizes.fleet} publishers through one broker")
        results = [await fleet(broker, sizes)]
        progress(0.2, "a module starts")
        settings = BrokerSettings(url=broker.url)
        async with module(directory, settings, settings, {"unlocked": "false"}) as found:
            await found.said.until(lambda: found.said.activity().startswith("safe"), "locked and dark")
            results.append(await idle(found, "idle, locked", sizes, limits=True))
            progress(0.5, "round trips")
            results.append(await round_trips(broker, found, sizes))
            progress(0.6, "calibrating until it is ready")
            await command(found, broker, "unlock")
            await command(found, broker, "start")
            await found.said.until(lambda: found.said.activity().startswith("ready: offline"), "ready, without a peer")
            await asyncio.sleep(sizes.settle_s)  # upkeep that was waiting for the first calibration
            progress(0.8, "ready, every loop running")
            results.append(await idle(found, "ready, no peer", sizes, limits=False))
            progress(0.85, "the broker stops answering")
            results.append(await broker_away(found, broker, sizes.away_s))
        return results
    finally:
        broker.stop()


# round trip


async def round_trips(broker: BrokerHandle, found: Module, sizes: Sizes) -> Result:
    """p99 from publishing a signed request to its answer, ms, beside an echo of bare aiomqtt clients."""
    client = ClientFiles.load(found.site / "operator")
    topic, reply = f"{ROOT}command/stop", f"{ROOT}reply/{client.signer.name}"
    payloads = [
        make_request(client, MODULE, found.said.epoch, "stop", {}, SystemClock(), SystemRandomness()).payload()
        for _ in range(sizes.round_trips)
    ]
    async with open_link(BrokerSettings(url=broker.url), "bench-operator") as link:
        await link.subscribe(reply)
        ours, answers = await _ask(link, topic, reply, payloads)
    refused = [a for a in answers if not Reply.model_validate_json(a).ok]
    if refused:
        raise Mismatch(f"{len(refused)} of {len(answers)} commands were refused: {refused[0][:200]!r}")
    asker = open_link(BrokerSettings(url=broker.url), "bench-asker")
    async with _peer("echo", broker.plan.port), asker as link:
        await link.subscribe("echo/answer")
        theirs, _ = await _ask(link, "echo/ask", "echo/answer", payloads)
    return Result(
        "mqtt, command",
        percentile(ours, 0.99),
        "ms p99",
        percentile(theirs, 0.99),
        "bare aiomqtt echo",
        less_is_better=True,
        limit=ROUND_TRIP_LIMIT_MS,
        detail={
            "p50_ms": percentile(ours, 0.5),
            "max_ms": max(ours),
            "echo_p50_ms": percentile(theirs, 0.5),
            "requests_count": float(len(ours)),
            "request_bytes": float(len(payloads[0])),
        },
        note="sign once, publish, uplink, core verifies two signatures and acts, uplink, answer",
    )


async def _ask(link: Link, topic: str, reply: str, payloads: list[bytes]) -> tuple[list[float], list[bytes]]:
    """Milliseconds and the answer of each, one after the other."""
    took, answers = [], []
    for number, payload in enumerate(payloads):
        mark = number.to_bytes(4, "big")
        begun = time.perf_counter()
        async with asyncio.timeout(10.0):
            await link.publish(topic, payload, correlation=mark, response_topic=reply, expires_in_s=60)
            message = await link.next_message()
            while message.correlation != mark:
                message = await link.next_message()
        took.append(1e3 * (time.perf_counter() - begun))
        answers.append(message.payload)
        await asyncio.sleep(PAUSE_S)
    return took, answers


async def command(found: Module, broker: BrokerHandle, name: str) -> None:
    """Give one as the operator. Raises Mismatch when it is refused."""
    client = ClientFiles.load(found.site / "operator")
    reply = f"{ROOT}reply/{client.signer.name}"
    request = make_request(client, MODULE, found.said.epoch, name, {}, SystemClock(), SystemRandomness())
    async with open_link(BrokerSettings(url=broker.url), "bench-commander") as link:
        await link.subscribe(reply)
        _, (answer,) = await _ask(link, f"{ROOT}command/{name}", reply, [request.payload()])
    if not Reply.model_validate_json(answer).ok:
        raise Mismatch(f"{name} was refused: {answer[:300]!r}")


# a fleet


async def fleet(broker: BrokerHandle, sizes: Sizes) -> Result:
    """Messages of a fleet's telemetry that did not arrive, and what the broker cost meanwhile."""
    before, begun = usage(broker.process.pid), time.monotonic()
    late: list[float] = []
    seen: dict[str, set[int]] = {}
    done = 0
    async with open_link(BrokerSettings(url=broker.url), "bench-noc") as link:
        await link.subscribe("qmodd/v1/+/telemetry/bench", "qmodd/v1/+/bye")
        async with _peer("fleet", broker.plan.port, str(sizes.fleet), str(sizes.fleet_s)) as peer:
            async with asyncio.timeout(sizes.fleet_s + 60.0):
                while done < sizes.fleet:
                    message = await link.next_message()
                    if message.topic.endswith("/bye"):
                        done += 1
                        continue
                    body = json.loads(message.payload)
                    late.append(1e3 * (time.time() - body["t"]))
                    seen.setdefault(message.topic, set()).add(body["seq"])
            assert peer.stdout is not None
            sent = int(await peer.stdout.readline())
    lost = sent - sum(map(len, seen.values()))
    after, took = usage(broker.process.pid), time.monotonic() - begun
    return Result(
        "mqtt, fleet",
        float(lost),
        "messages lost",
        None,
        "",
        less_is_better=True,
        limit=0.0,
        detail={
            "publishers_count": float(sizes.fleet),
            "messages_count": float(sent),
            "values_count": float(VALUES),
            "late_p99_ms": percentile(late, 0.99),
            "broker_cpu_percent": 100 * (after.cpu_s - before.cpu_s) / took,
            "broker_rss_mb": after.rss_mb,
        },
        note="1 Hz each, QoS 0",
    )


@asynccontextmanager
async def _peer(*arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.mqtt_peers", *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60.0):
            if (await process.stdout.readline()).strip() != b"ready":
                raise Mismatch(f"{arguments[0]} did not start")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


# idle


async def idle(found: Module, name: str, sizes: Sizes, *, limits: bool) -> Result:
    """Processor time of core and uplink together, per cent of one core, over a while in which nothing is asked."""
    pids = {"core": found.core, "uplink": found.uplink}
    before, begun = {n: usage(p) for n, p in pids.items()}, time.monotonic()
    await asyncio.sleep(sizes.idle_s)
    after, took = {n: usage(p) for n, p in pids.items()}, time.monotonic() - begun
    cpu = {n: 100 * (after[n].cpu_s - before[n].cpu_s) / took for n in pids}
    memory = sum(u.rss_mb for u in after.values())
    if limits and memory > MEMORY_LIMIT_MB:
        raise Mismatch(f"core and uplink hold {memory:.0f} MB; at most {MEMORY_LIMIT_MB:g}: {_memory(after)}")
    return Result(
        f"mqtt, {name}",
        sum(cpu.values()),
        "% of a core",
        None,
        "",
        less_is_better=True,
        limit=CPU_LIMIT_PERCENT if limits else None,
        detail={
            **{f"{n}_cpu_percent": c for n, c in cpu.items()},
            "rss_mb": memory,
            "pss_mb": sum(u.pss_mb for u in after.values()),
            **{f"{n}_rss_mb": u.rss_mb for n, u in after.items()},
        },
        note=found.said.activity(),
    )


def _memory(after: dict[str, Usage]) -> str:
    return ", ".join(f"{n} {u.rss_mb:.0f} MB" for n, u in after.items())
