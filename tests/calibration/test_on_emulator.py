"""The calibrations of a pair, and the phase lock after them, through the real drivers on the emulator.

Only here may what was found be compared with the emulator's truth.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest

from calibration.context import CalibrationRefused
from calibration.graph import bring_up
from calibration.procedures import alice_graph, bob_graph
from drivers.roles import LightMode
from qmodd.control.phase_heater import PhaseHeater
from qmodd.control.phase_lock import PhaseCounts, PhaseLock, PhaseLockConfig, Sample
from sim.loop import SimulatedLoop, run_simulated
from tests.calibration.emulator import AliceLight, Pair, pair

RAD = math.pi / 180


def folded(radians: float, twin: float) -> float:
    """Error of a coupler in degrees: its mirror image at -2 `twin` splits the light in the same way."""
    return min(abs(math.remainder(radians, 2 * math.pi)), abs(math.remainder(radians + 2 * twin, 2 * math.pi))) / RAD


def balanced(long_db: float) -> float:
    return 2 * math.asin(math.sqrt(1 / (1 + 10 ** (-long_db / 10))))


async def check_alice(p: Pair) -> None:
    records = await bring_up(alice_graph(), p.alice.context)
    truth, individual = p.truth.set_points(), p.world.alice.individual
    assert abs(truth["filter"]) < 12 * RAD
    assert abs(truth["shutter"]) < 6 * RAD
    assert max(abs(truth[n]) for n in "csd") < 1.5 * RAD
    assert folded(truth["a_split"], balanced(individual.long_db)) < 1
    for name, modulator in (("carver_bias", individual.carver), ("state_bias", individual.state)):
        assert records[name].value["v_pi_v"] == pytest.approx(modulator.v_pi, rel=0.01)
    mu, mean = p.truth.snapshot().mu, records["mean_photon"].value
    for k, intensity in enumerate(("signal", "decoy")):
        for s in range(4):
            # Three standard uncertainties of the factory's constants; the record's interval is two.
            assert mu[2 * s + k] == pytest.approx(mean[f"mu_{intensity}"], rel=0.026)
            assert 1.01 < mean[f"mu_{intensity}_high"] / mean[f"mu_{intensity}"] < 1.03
    assert mu[1] / mu[0] == pytest.approx(1 / 3, rel=0.003)


async def check_bob(p: Pair) -> None:
    records = await bring_up(bob_graph(), p.bob.context)
    truth, individual = p.truth.set_points(), p.world.bob.individual
    assert folded(truth["b_split"], balanced(individual.long_db)) < 3
    assert folded(truth["b_combine"], math.pi / 2) < 3
    bias = np.array([records["detector_bias"].value[f"{n}_bias_a"] for n in ("dz", "dx0", "dx1")])
    assert np.all((bias / individual.switch_a > 0.85) & (bias / individual.switch_a < 0.93))
    delays = [records["detector_delay"].value[f"delay_{n}_ps"] for n in ("dz", "dx0", "dx1")]
    assert delays == pytest.approx(individual.delay_ps - individual.delay_ps[0], abs=8)
    assert records["detector_delay"].value["clock_offset"] == pytest.approx(p.truth.clock_offset(), abs=1e-9)
    await AliceLight(p.alice.context).set(LightMode.KEY)
    await asyncio.sleep(0.2)
    now = p.truth.snapshot()
    assert now.share_x == pytest.approx(0.26, abs=0.02)
    assert abs(now.phase_error_deg) < 12
    assert now.qber_z < 0.015


async def check_lock(p: Pair, seed: int) -> None:
    """Thrown 0.5 rad off, the lock comes back by counts alone; its sign is that of the calibration."""
    record, rng = p.bob.context.record("arm_phase"), np.random.default_rng(seed)
    heater = PhaseHeater.of(p.bob.context, record.value["p_pi_w"])
    lock = PhaseLock(PhaseLockConfig.of(record, heater.low_rad, heater.high_rad), 0.5)
    await heater.go(0.5)
    errors = []
    for k in range(60):
        await asyncio.sleep(1.0)
        lam = np.asarray(p.truth.light().lam)[:8]
        mean = 125e6 * 0.25 * 0.25 * lam[:, [3, 6]]  # half a second of X0, half of X1, one intensity in two
        n = rng.poisson(mean)
        x0, x1 = n[4:6].sum(0), n[6:8].sum(0)
        counts = PhaseCounts(1.0, int(x0.sum()), int(x0[0]), int(x1.sum()), int(x1[1]))
        action = lock.update(k + 1.0, [Sample(float(k), k + 1.0, counts=counts)])
        await heater.go(action.phase_rad)
        lock.applied(k + 1.0, action.phase_rad)
        errors.append(p.truth.phase_error_deg)
    assert abs(errors[0]) > 8
    assert lock.report(60.0).locked
    assert np.sqrt(np.mean(np.square(errors[20:]))) < 2.5


@pytest.mark.parametrize(("seed", "loss_db"), [(3, 10.0), (7, 10.0), (12, 30.0)])
def test_a_cold_pair_calibrates_itself_and_locks(seed: int, loss_db: float) -> None:
    async def main(loop: SimulatedLoop) -> tuple[float, float]:
        async with pair(loop, seed, loss_db) as p:
            began = loop.time()
            await check_alice(p)
            alice_s = loop.time() - began
            await check_bob(p)
            bob_s = loop.time() - began - alice_s
            if loss_db <= 10:
                await check_lock(p, seed)
            return alice_s, bob_s

    alice_s, bob_s = run_simulated(main)
    assert alice_s < 15
    assert bob_s < 35


def test_a_warm_boot_redoes_nothing() -> None:
    async def main(loop: SimulatedLoop) -> float:
        async with pair(loop, 5) as p:
            await bring_up(alice_graph(), p.alice.context)
            await bring_up(bob_graph(), p.bob.context)
            for side in (p.alice, p.bob):
                for role in ("heaters", "biases"):
                    await side.roles[role].make_safe()
            began = loop.time()
            await bring_up(alice_graph(), p.alice.context)
            await bring_up(bob_graph(), p.bob.context)
            for side in (p.alice, p.bob):
                assert all(len(side.context.store.history(n)) == 1 for n in side.context.store.names())
            return loop.time() - began

    assert run_simulated(main) < 15


def test_a_fibre_without_light_is_named() -> None:
    async def main(loop: SimulatedLoop) -> Any:
        async with pair(loop, 5, loss_db=75.0) as p:
            await bring_up(alice_graph(), p.alice.context)
            with pytest.raises(CalibrationRefused, match=r"detector_bias: .*(no light|attenuation)"):
                await bring_up(bob_graph(), p.bob.context)

    run_simulated(main)
