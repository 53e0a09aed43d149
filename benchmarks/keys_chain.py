"""The receiver's whole chain, tags to stored keys, beside its slowest stage alone; the control loop beside it; memory.

The chain is the daemon's own: engine, worker process, session, authentication, store (`keys_replay`). Each stage's own
rate is measured in the same run, through the same worker, with nothing beside it.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import numpy.typing as npt

from benchmarks import scheduler
from benchmarks.keys_replay import BIN_PS, PERIOD_PS, Rig, Tape, answers, material, rig, tape
from benchmarks.measure import Progress, Result, must_agree, silent
from qmodd.daemon import SWITCH_S, precise_loop
from qmodd.keys.amplification import seed_bytes
from qmodd.keys.bench import Bench
from qmodd.keys.counts import BlockCounts
from qmodd.keys.frames import FrameClock, Gates
from qmodd.keys.kernels import WorkerKernels
from qmodd.keys.material import Held, Material
from qmodd.keys.reconciliation import Plan
from qmodd.keys.records import BlockRecord, SecretBits
from qmodd.randomness import SystemRandomness
from qmodd.realtime import take_priority

QBER = 0.02
LEAST_SHARE = 0.8
LATE_MS = 1.0
REALTIME, REALTIME_LATE_MS = 10, 0.3
MOST_MB = 300.0
MOST_START_S = 2.0
_CORES = 2
_WARM = 2  # blocks before the clock starts: the first is distilled alone, and the replay learns its answers
_TRIES = 5  # the best of so many stretches of a play counts: hosts swing


@dataclass(frozen=True)
class Size:
    n_z: int = 1_966_080
    blocks: int = 42
    blocks_beside: int = 42
    big: int = 10_000_000
    times: int = 5


def rows(progress: Progress = silent, size: Size = Size()) -> Iterator[Result]:
    """Rates in sifted Z bits a second; lateness, memory and start of the worker."""
    progress(0.0, "starting the worker")
    yield from _run(_memory(size))
    progress(0.2, "stages alone, then the chain")
    yield from _run(_chain(size))


def run(progress: Progress = silent) -> Iterator[Result]:
    return rows(progress)


def _run(main: Awaitable[list[Result]]) -> list[Result]:
    async def wrapped() -> list[Result]:
        return await main

    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        with asyncio.Runner(loop_factory=precise_loop) as runner:
            return runner.run(wrapped())
    finally:
        sys.setswitchinterval(before)


@asynccontextmanager
async def _worker() -> AsyncIterator[tuple[WorkerKernels, float, int]]:
    """Kernels, s until they were ready, process id."""
    kernels = WorkerKernels()
    begun = time.perf_counter()
    await kernels.start()
    taken = time.perf_counter() - begun
    try:
        yield kernels, taken, int(await kernels._call("pid"))
    finally:
        await kernels.close()


def _cpu_s(pid: int) -> float:
    """Processor time that a process has used: the clock of Linux that `clock_getcpuclockid` names."""
    return time.clock_gettime((~pid << 3) | 2)


@contextmanager
def _normal_priority(pid: int) -> Iterator[None]:
    """Rates are compared at normal priority: at idle priority, which the worker has in earnest and gets back after,
    they would tell what else this machine is doing. On a quiet machine the two are the same."""
    threads = [int(p.name) for p in Path(f"/proc/{pid}/task").iterdir()]
    for thread in threads:
        os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, thread, 0)
    try:
        yield
    finally:
        for thread in threads:
            os.setpriority(os.PRIO_PROCESS, thread, 19)
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def _most_memory_mb(pid: int) -> float:
    """Most resident memory that the process ever had (VmHWM), pages shared with its parent included."""
    for text in Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith("VmHWM:"):
            return int(text.split()[1]) * 1024 / 1e6
    raise RuntimeError("the system does not say how much memory a process had")


async def _memory(size: Size) -> list[Result]:
    async with _worker():  # compiles what is not in the cache yet
        pass
    async with _worker() as (kernels, ready_s, pid):
        idle, processor_s = _most_memory_mb(pid), _cpu_s(pid)
        bob, alice = _pair(size.big)
        held = await kernels.hold(bob)
        await _correct(kernels, held, *_alice(alice))
        await kernels.verification_tag(bytes(16), held)
        m = size.big // 3
        (await kernels.amplify(held, np.random.default_rng(1).bytes(seed_bytes(size.big, m)), m))[:] = bytes(-(-m // 8))
        memory = _most_memory_mb(pid)
    return [
        Result(
            *("worker_ready", ready_s, "s", None, ""),
            less_is_better=True,
            limit=MOST_START_S,
            detail={"processor_s": processor_s, "load_average": os.getloadavg()[0]},
        ),
        Result(
            *("worker_memory", memory, "MB", None, ""),
            less_is_better=True,
            limit=MOST_MB,
            detail={"block_bits": float(size.big), "idle_mb": idle},
        ),
    ]


def _pair(n: int) -> tuple[Material, Material]:
    """Bob's and Alice's bits of a block without anything else to it."""
    rng = np.random.default_rng(7)
    ours = rng.integers(0, 2, n, dtype=np.uint8)
    theirs = ours ^ (rng.random(n) < QBER).astype(np.uint8)
    return _bare(theirs), _bare(ours)


def _bare(bits: npt.NDArray[np.uint8]) -> Material:
    none = (0, 0)
    return Material(bits, np.zeros(len(bits), np.uint8), BlockCounts((len(bits), 0), none, none, none), 0, len(bits))


def _alice(block: Material) -> tuple[Bench, Held]:
    bench = Bench(SystemRandomness())
    return bench, bench.hold(block)


async def _correct(kernels: WorkerKernels, held: Held, alice: Bench, theirs: Held) -> float:
    """s that the receiver spends on correction, what Alice computes for it left out."""
    plan = Plan.make(held.counts.total_z, QBER)
    taken, data = 0.0, alice.syndromes(theirs, plan)
    begun = time.perf_counter()
    wanted = await kernels.correct(held, plan, data)
    taken += time.perf_counter() - begun
    while wanted:
        pieces = alice.disclose(theirs, plan, wanted)
        begun = time.perf_counter()
        wanted = await kernels.assist(held, wanted, pieces)
        taken += time.perf_counter() - begun
    begun = time.perf_counter()
    await kernels.corrected(held)
    return taken + time.perf_counter() - begun


async def _stages(kernels: WorkerKernels, played: Tape, size: Size) -> dict[str, float]:
    """Shortest time of each stage for one block, s, alone."""
    best: dict[str, float] = {}
    basis = answers(played)
    bench, theirs = _alice(material(played))
    rng = np.random.default_rng(3)

    def keep(name: str, seconds: float) -> None:
        best[name] = min(seconds, best.get(name, seconds))

    for _ in range(size.times):
        held, spent = await _frames(kernels, played, basis, size.n_z)
        for name, seconds in spent.items():
            keep(name, seconds)
        keep("correction", await _correct(kernels, held, bench, theirs))
        begun = time.perf_counter()
        tag = await kernels.verification_tag(bytes(range(16)), held)
        keep("verification", time.perf_counter() - begun)
        must_agree("corrected block", tag == bench.verification_tag(bytes(range(16)), theirs))
        m = size.n_z // 3
        seed = rng.bytes(seed_bytes(size.n_z, m))
        begun = time.perf_counter()
        await kernels.amplify(held, seed, m)
        keep("amplification", time.perf_counter() - begun)
        kernels.release(held)
    return best


async def _frames(kernels: WorkerKernels, played: Tape, basis: list[bytes], n_z: int) -> tuple[Held, dict[str, float]]:
    """Tags of one block to the closed block: s for frames with DETECT, and for sifting."""
    clock = FrameClock(0, 0, 0.0, PERIOD_PS)
    await kernels.open_frames(Gates(BIN_PS, 200.0, lead_ps=BIN_PS), 0, (0.0, 0.0, 0.0), 0)
    frames = sifting = 0.0
    closed: tuple[Held, ...] = ()
    for j, t in enumerate(played.t):
        begun = time.perf_counter()
        end = played.ends[j] * int(PERIOD_PS)
        seen = await kernels.accept(t, played.channel[j], end, clock, (), np.empty((0, 2), np.int64))
        must_agree("one batch's DETECT", bool(seen.detect))
        middle = time.perf_counter()
        _, gathered = await kernels.sift(seen.first_slot, basis[j], n_z)
        frames, sifting = frames + middle - begun, sifting + time.perf_counter() - middle
        closed += gathered.closed
    must_agree("blocks on the tape", len(closed) == 1)
    return closed[0], {"frames": frames, "sifting": sifting}


async def _chain(size: Size) -> list[Result]:
    played = tape(size.n_z, QBER, 5)
    alone = await _alone(5.0)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        async with _worker() as (kernels, _, pid):
            with _normal_priority(pid):
                own = await _stages(kernels, played, size)
                parts = rig(Path(place) / "rate", played, size.n_z, QBER, size.blocks, kernels)
                used = -_cpu_s(pid) - time.process_time()
                _, seconds = await _play(parts, size.blocks)
                used = (used + _cpu_s(pid) + time.process_time()) / size.blocks
                own |= {name: min(own[name], s) for name, s in (await _stages(kernels, played, size)).items()}
            late = await _late(Path(place) / "late", played, size, kernels)
            why = take_priority(REALTIME)
            hurried = await _late(Path(place) / "hurried", played, size, kernels) if why is None else math.nan
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            memory = _most_memory_mb(pid)
            own["store"] = _store_alone(parts, size.times)
            await parts.close()
    slowest = max(own, key=lambda name: own[name])
    rate, limit = 1e-6 * size.n_z / seconds, 1e-6 * size.n_z / own[slowest]
    record = parts.committed[-1][1]
    secret = sum(r.length_bits for _, r in parts.committed[_WARM:]) / (len(parts.committed) - _WARM)
    detail = {f"{name}_mbit_per_s": 1e-6 * size.n_z / s for name, s in own.items()}
    detail |= {
        "secret_mbit_per_s": 1e-6 * secret / seconds,
        "all_stages_mbit_per_s": 1e-6 * size.n_z / sum(own.values()),
        "qber_share": record.qber_z,
        # Of two cores that do nothing else: what the processor time of a block leaves room for.
        "free_cores_mbit_per_s": 1e-6 * size.n_z * _CORES / used,
        "load_average": os.getloadavg()[0],
        "worker_mb": memory,
    }
    return [
        Result(
            *("chain", rate / limit, "of slowest stage", None, ""),
            limit=LEAST_SHARE,
            detail={"sifted_mbit_per_s": rate, "slowest_mbit_per_s": limit, **detail},
            note=f"slowest is {slowest}",
        ),
        Result(
            *("loop_beside_chain", late, "ms p99 late", alone, scheduler.ALONE),
            less_is_better=True,
            limit=LATE_MS,
            detail={"load_average": os.getloadavg()[0]},
        ),
        *_realtime(hurried, alone, why),
    ]


def _realtime(late_ms: float, alone_ms: float, why: str | None) -> Iterator[Result]:
    if why is not None:
        return
    yield Result(
        *("loop_beside_chain_realtime", late_ms, "ms p99 late", alone_ms, scheduler.ALONE),
        less_is_better=True,
        limit=REALTIME_LATE_MS,
        detail={"load_average": os.getloadavg()[0]},
        note=f"control.realtime_priority = {REALTIME}",
    )


async def _late(place: Path, played: Tape, size: Size, kernels: WorkerKernels) -> float:
    """p99 lateness beside a chain whose worker runs at idle priority, ms."""
    parts = rig(place, played, size.n_z, QBER, size.blocks_beside, kernels)
    late, _ = await _play(parts, size.blocks_beside)
    await parts.close()
    return late


async def _alone(seconds: float) -> float:
    """p99 lateness of the same loop with nothing beside it, ms."""
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, done.set)
    return 1e3 * (await scheduler.reports_until(done))["fast"].late_p99_s


def _store_alone(parts: Rig, times: int) -> float:
    """Shortest time to make a block like those of the chain durable, prepare and commit, s."""
    journal, record = parts.desk.journal, parts.committed[-1][1]
    bits = record.replenish_bits + record.keys * record.key_bits
    taken = []
    for _ in range(times):
        again = replace(record, uuid=str(uuid4()), round=journal.pool.next_round)
        journal.pool.claim(again.round)
        secret = SecretBits(bytearray(bits // 8), bits)
        begun = time.perf_counter()
        journal.prepare(again, secret)
        journal.commit(UUID(again.uuid))
        taken.append(time.perf_counter() - begun)
    return min(taken)


async def _play(parts: Rig, blocks: int) -> tuple[float, float]:
    """(p99 lateness of a 100 Hz loop beside the chain, ms; s a block), both once several blocks are in flight."""
    warm, done = asyncio.Event(), asyncio.Event()

    def on_block(record: BlockRecord) -> None:
        parts.committed.append((time.perf_counter(), record))
        if len(parts.committed) >= _WARM:
            warm.set()
        if len(parts.committed) >= blocks:
            done.set()

    async def lateness() -> float:
        await warm.wait()
        return 1e3 * (await scheduler.reports_until(done))["fast"].late_p99_s

    parts.desk.on_block = on_block
    gc.collect()
    async with asyncio.timeout(120):
        tasks = [asyncio.create_task(parts.bob.run())]
        await parts.bob.start_keying()
        loops = asyncio.create_task(lateness())
        finished = asyncio.create_task(done.wait())
        await asyncio.wait([*tasks, finished], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
        late = await loops
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    times = [t for t, _ in parts.committed]
    return late, _best_stretch(times[_WARM - 1 :])


def _best_stretch(times: list[float], tries: int = _TRIES) -> float:
    """Least s a block over `tries` stretches of equal length, one after the other, between the given times (s)."""
    blocks = max(1, (len(times) - 1) // tries)
    ends = range(blocks, len(times), blocks)
    return min((times[end] - times[end - blocks]) / blocks for end in ends)
