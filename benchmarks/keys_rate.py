"""Key rates against theory: the emulated pair's against the planner's, and published systems against the same planner.

The pair runs in simulated time with the daemons' own loops and key engine. Theory gets the module's parameters (data of
its parts, its set points, the intensity intervals that it published before the blocks) and nothing that the run
measured. What the optics really were, which only the emulator knows, explains a difference and is printed beside it.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Progress, Result, silent
from qmodd.keys.counts import BlockCounts
from qmodd.keys.reconciliation import Mode, Plan
from qmodd.keys.records import BlockRecord
from qmodd.keys.verification import TAG_BITS
from qmodd.rate.model import Rates, rates
from qmodd.rate.optimise import optimise
from qmodd.rate.planner import block_length, counts_in
from qmodd.rate.system import Receiver, Source, System, load
from qmodd.soak import STROBE, Run
from sim.individuals import AliceIndividual, BobIndividual
from sim.loop import SimulatedLoop
from sim.scenario import Scenario

WITHIN = (0.97, 1.03)
FACTOR = 1.3
PUBLISHED = Path(__file__).parents[1] / "configs" / "published"
STROBE_PERIOD_PS = 8_000_000_000
DRAWS = 200


@dataclass(frozen=True)
class Setting:
    """loss_db; duty: share of the time in which the receiver looks, so that a block takes some ten seconds at any
    loss; n_z; blocks: that are counted, after one whose correction did not know the error rate yet; mu_signal."""

    loss_db: float
    duty: float
    n_z: int
    blocks: int
    mu_signal: float = 0.54


# At 0 dB the light is near what `qmodd rate --optimise` proposes: 0.2, but calibrations want a tenth of it, which the
# attenuator reaches from 0.25 on. With 0.54 photons cross clicks eat nine tenths of the key, and the small rest moves
# by 4 % for each 0.1 dB of light or 0.1 % of error.
SETTINGS = (
    Setting(0.0, 0.05, 1_966_080, 8, mu_signal=0.25),
    Setting(5.0, 0.10, 1_966_080, 10),
    Setting(10.0, 0.25, 1_966_080, 10),
    Setting(15.0, 0.60, 1_966_080, 10),
    Setting(20.0, 1.00, 1_966_080, 8),
)


def rows(progress: Progress = silent, settings: Sequence[Setting] = SETTINGS, seed: int = 1) -> Iterator[Result]:
    """Rates of the pair at each loss, then of published systems. Minutes for each loss."""
    for i, setting in enumerate(settings):
        progress(i / (len(settings) + 1), f"key rate at {setting.loss_db:g} dB")
        yield against_theory(setting, seed)
    progress(len(settings) / (len(settings) + 1), "published systems")
    yield from published()
    progress(1.0, "key rates")


run = rows


# ------------------------------------------------------------ the emulated pair


@dataclass
class Measured:
    """records: of the blocks after the first; optics: (QBER_Z, QBER_X) of the light alone, once a second of keying."""

    records: list[BlockRecord] = field(default_factory=list)
    optics: list[tuple[float, float]] = field(default_factory=list)
    alice: AliceIndividual | None = None
    bob: BobIndividual | None = None


def against_theory(setting: Setting, seed: int = 1) -> Result:
    """Secret bits a second of the pair over the expectation of theory for the same block size."""
    measured = measure(setting, seed)
    records = measured.records
    if not records or measured.alice is None or measured.bob is None:
        return Result(f"key_rate_{setting.loss_db:g}_db", 0.0, "of theory", None, "", limit=WITHIN, note="no blocks")
    theory = system_of(measured.alice, measured.bob, records[-1])
    r = rates(theory, setting.loss_db)
    mean, _ = expectation(theory, r, setting.n_z)
    expected_bps = mean * r.total_z / setting.n_z
    seconds = sum(b.end_slot - b.first_slot for b in records) * theory.source.symbol_period_ps * 1e-12 * setting.duty
    lengths = np.array([b.length_bits for b in records], float)
    got_bps = float(lengths.sum()) / seconds
    told = informed(theory, measured)
    with_errors, _ = expectation(told, rates(told, setting.loss_db), setting.n_z)
    n_z, n_x = (sum(sum(getattr(b, name)) for b in records) for name in ("n_z", "n_x"))
    detail = {
        "measured_bps": got_bps,
        "theory_bps": expected_bps,
        "standard_error": float(lengths.std(ddof=1) / math.sqrt(len(lengths)) / mean) if len(lengths) > 1 else 0.0,
        "blocks": float(len(records)),
        "n_z": float(setting.n_z),
        "mu_signal": setting.mu_signal,
        "sifted_over_theory": n_z / seconds / r.total_z,
        "length_over_theory": float(lengths.mean()) / mean,
        "length_over_theory_with_true_optical_errors": float(lengths.mean()) / with_errors if with_errors else 0.0,
        "qber_z_percent": 100.0 * sum(sum(b.m_z) for b in records) / n_z,
        "theory_qber_z_percent": 100.0 * r.qber_z,
        "qber_x_percent": 100.0 * sum(sum(b.m_x) for b in records) / n_x,
        "theory_qber_x_percent": 100.0 * r.qber_x,
        "true_optical_qber_z_percent": 100.0 * told.source.error_z,
        "parts_optical_qber_z_percent": 100.0 * theory.source.error_z,
        "true_optical_qber_x_percent": 100.0 * told.receiver.error_x,
        "parts_optical_qber_x_percent": 100.0 * theory.receiver.error_x,
        "n_x_over_theory": n_x / n_z / (float(r.n_x.sum()) / r.total_z),
        "leak_bits": float(np.mean([b.leak_bits for b in records])),
    }
    name = f"key_rate_{setting.loss_db:g}_db"
    return Result(name, got_bps / expected_bps, "of theory", None, "", detail=detail, limit=WITHIN)


def measure(setting: Setting, seed: int) -> Measured:
    """Runs the pair until it has the blocks, at most half an hour of its time."""
    loop = SimulatedLoop()
    scenario = Scenario.model_validate({"seed": seed, "link": {"loss_db": setting.loss_db}})
    with (
        tempfile.TemporaryDirectory(prefix="qmodd-rate-") as directory,
        asyncio.Runner(loop_factory=lambda: loop) as runner,
    ):
        return runner.run(_measured(loop, scenario, setting, seed, Path(directory)))


async def _measured(loop: SimulatedLoop, scenario: Scenario, setting: Setting, seed: int, directory: Path) -> Measured:
    strobe = STROBE_PERIOD_PS if setting.duty < 1.0 else 0
    settings: dict[str, Any] = STROBE | {
        "gate_open_ps": round(setting.duty * strobe),
        "gate_period_ps": strobe,
        "batch_s": 0.5,
        "n_z": setting.n_z,
        "mu_signal": setting.mu_signal,
    }
    run = Run(loop, directory, scenario, seed, settings=settings)
    store, out = run.sites["bob"].core.store, Measured(alice=run.world.alice.individual, bob=run.world.bob.individual)

    def enough() -> bool:
        ids = store.block_ids()
        if ids:
            seen = run.truth.snapshot()
            if math.isfinite(seen.qber_x):  # no light while the source looks at itself
                out.optics.append((seen.qber_z, seen.qber_x))
        return len(ids) > setting.blocks

    try:
        await run.for_seconds(1800.0, enough)
        found = [b for b in map(store.block, store.block_ids()) if b is not None]
        out.records = sorted(found, key=lambda b: (b.run, b.block))[1:]
    finally:
        run.close()
    return out


# ------------------------------------------------------------ what theory is told


def system_of(a: AliceIndividual, b: BobIndividual, published: BlockRecord) -> System:
    """The module's parameters: parts by their data, all controls at their set points.

    Light that the state modulator leaks is in the wrong bin; the same leak turns the X states by its angle against each
    other, and the carver's leak in four times the pulse's length does not interfere. Polarisation-dependent loss counts
    with its mean.
    """
    leak, carved = a.state.xi**2, 4.0 * a.carver.xi**2
    visibility = b.v_mode / math.sqrt(1.0 + leak) / (1.0 + carved)
    long = 10.0 ** (-b.long_db / 10.0)
    common = b.common_db + b.pdl_db / 2.0
    source = Source(
        mu=tuple((low + high) / 2.0 for low, high in published.mu),
        mu_uncertainty=tuple((high - low) / (high + low) for low, high in published.mu),
        error_z=leak / (1.0 + leak),
    )
    receiver = Receiver(
        loss_z_db=common + b.z_db,
        loss_x_db=common + b.x_db - 10.0 * math.log10(2.0 * long / (1.0 + long)),
        efficiency=_three(b.efficiency),
        darks_hz=_three(b.darks),
        dead_ns=_three(b.dead_ps / 1e3),
        recovery_ns=_three(b.recovery_ps / 1e3),
        error_x=(1.0 - visibility) / 2.0,
    )
    return System(name="emulated pair", source=source, receiver=receiver)


def informed(theory: System, measured: Measured) -> System:
    """The same with the optical error rates that the light really had, on average: the cause of most differences."""
    if not measured.optics:
        return theory
    z, x = (float(v) for v in np.mean(measured.optics, axis=0))
    source = theory.source.model_copy(update={"error_z": z})
    receiver = theory.receiver.model_copy(update={"error_x": x})
    return theory.model_copy(update={"source": source, "receiver": receiver})


def expectation(system: System, r: Rates, n_z: int) -> tuple[float, float]:
    """Mean and scatter of a block's length: over Poisson counts, because the bound is not a straight line in them."""
    g = np.random.default_rng(1)
    mean = counts_in(r, n_z / r.total_z, n_z)
    lengths = [block_length(system, _drawn(g, mean), _leak).length_bits for _ in range(DRAWS)]
    return float(np.mean(lengths)), float(np.std(lengths))


def _drawn(g: np.random.Generator, mean: BlockCounts) -> BlockCounts:
    """Counts of one block: n_Z is exact, the rest scatters."""
    decoy = int(g.poisson(mean.n_z[1]))
    n_z = (mean.total_z - decoy, decoy)
    n_x = tuple(int(v) for v in g.poisson(mean.n_x))
    m_z = tuple(min(n, int(v)) for n, v in zip(n_z, g.poisson(mean.m_z), strict=True))
    m_x = tuple(min(n, int(v)) for n, v in zip(n_x, g.poisson(mean.m_x), strict=True))
    return BlockCounts(n_z, m_z, n_x, m_x)


def _leak(n: int, qber: float) -> int:
    """What the module's own codes disclose at this error rate when no frame needs help."""
    return Plan.make(n, qber, Mode.EFFICIENCY).syndrome_bits + TAG_BITS


def _three(values: Any) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return a, b, c


# ------------------------------------------------------------ published systems


def published() -> Iterator[Result]:
    """Each link of each file in configs/published: rate of the planner over the published one.

    No limit where a file says that it had to assume something.
    """
    for path in sorted(PUBLISHED.glob("*.toml")):
        text = path.read_text()
        system = load(path)
        assumed = "ASSUMED" in text
        for link in tomllib.loads(text)["published"]:
            yield _published(system, link, path.stem, assumed)


def _published(system: System, link: dict[str, Any], name: str, assumed: bool) -> Result:
    source = system.source.model_copy(update={"mu": tuple(link["mu"])})
    told = system.model_copy(update={"source": source})
    e = optimise(told, link["loss_db"], link["n_z"], fixed=("mu_signal", "decoy_ratio")).expectation
    detail = {
        "theory_bps": e.skr_bps,
        "published_bps": link["skr_bps"],
        "loss_db": link["loss_db"],
        "qber_z_percent": 100.0 * e.rates.qber_z,
        "published_qber_z_percent": 100.0 * link["qber_z"],
        "block_h": e.block_s / 3600.0,
    }
    return Result(
        f"published_{name}_{link['link'].replace(' ', '')}",
        e.skr_bps / link["skr_bps"],
        "of published",
        None,
        "",
        detail=detail,
        limit=None if assumed else (1.0 / FACTOR, FACTOR),
        note="receiver and probabilities assumed, see the file" if assumed else "",
    )
