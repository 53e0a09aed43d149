"""The receiver's calibrations beyond the working point: deferred ones, a ballast, and parts that are broken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.rig import pair, scenario
from benchmarks.truth import truth_of
from calibration.context import CalibrationRefused
from calibration.graph import bring_up
from calibration.names import HEATERS
from calibration.procedure import Verdict
from calibration.procedures import alice_graph, bob_graph
from sim.loop import SimulatedLoop, run_simulated
from tests.calibration.fakes import FakeBob

DEFERRED = ("dead_time", "efficiency_balance", "frame_sync", "attenuator_check", "path_loss")


def on_emulator(seed: int, targets: list[str] | None, loss_db: float = 10.0, **sections: Any) -> Any:
    """(records, names with a truth: (value, truth, sigma)) of a receiver after its transmitter's calibration."""

    async def main(loop: SimulatedLoop) -> Any:
        async with pair(loop, scenario(seed, loss_db, **sections)) as p:
            await bring_up(alice_graph(), p.alice.context)
            compared: dict[str, tuple[float, float, float]] = {}

            def heard(change: Any) -> None:
                if change.record is not None:
                    found = truth_of(p.world, "bob", change.record)
                    for name, truth in ((n, t) for n, t in found.items() if n in change.record.value):
                        key = f"{change.record.name}.{name}"
                        compared[key] = (change.record.value[name], truth, change.record.sigma(name))

            p.bob.context.store.subscribe(heard)
            records = await bring_up(bob_graph(), p.bob.context, targets)
            raw = {n: p.bob.context.raw.get(r.raw_sha256) or {} for n, r in records.items()}
            figures = {n: bob_graph()[n].figures(r, raw[n]) for n, r in records.items()}
            return records, compared, figures

    return run_simulated(main)


def test_everything_that_is_deferred_is_made_and_right() -> None:
    records, compared, figures = on_emulator(4, list(DEFERRED))
    for detector in ("dz", "dx0", "dx1"):
        for part in ("dead_s", "recovery_s"):
            value, truth, sigma = compared[f"dead_time.{detector}_{part}"]
            assert abs(value - truth) < 5.0 * sigma
    sync = records["frame_sync"].value
    assert min(sync["code_peak"], sync["superframe_peak"]) > sync["peak_limit"]
    assert abs(sync["dx0_shift_ps"]) < 10.0
    assert sync["clock_offset"] == pytest.approx(records["detector_delay"].value["clock_offset"], abs=3e-10)
    steps = records["attenuator_check"]
    off = [steps.value[n] for n in steps.covariance_names]
    assert len(off) >= 2
    assert max(map(abs, off)) < 0.1
    loss = records["path_loss"]
    assert abs(loss.value["fibre_db"] - 10.0) < 4.0 * loss.sigma("fibre_db")
    ratio = records["efficiency_balance"]
    assert ratio.value["efficiency_ratio"] == pytest.approx(compared["combiner.efficiency_ratio"][1], rel=0.03)
    assert all(shown for shown in figures.values())


def test_a_ballast_keeps_the_heater_sum_during_sweeps() -> None:
    records, compared, _ = on_emulator(3, None, modules={"ballast": True})
    assert records["arm_phase"].value["ballast"] == 1.0
    hop = {n: v for n, v in records["crosstalk"].value.items() if n.startswith("hop_prompt_")}
    assert sum(hop.values()) + records["crosstalk"].value["hop_ballast_w"] == pytest.approx(0.0, abs=1e-12)
    value, truth, sigma = compared["arm_phase.p_pi_w"]
    assert abs(value - truth) < 4.0 * sigma
    assert abs(value / truth - 1.0) < 0.006


def test_the_crosstalk_of_the_receiver() -> None:
    records, compared, _ = on_emulator(6, None)
    for seen in HEATERS["bob"]:
        for heated in HEATERS["bob"]:
            value, truth, _ = compared[f"crosstalk.theta_{seen}_{heated}"]
            assert abs(value - truth) < 0.006
    value, truth, sigma = compared["crosstalk.common_phase_rad_per_w"]
    assert abs(value - truth) < 4.0 * sigma
    v = records["crosstalk"].value
    assert max(abs(v[f"{n}_imbalance"]) for n in ("arm", "port", "basis")) < 0.1
    assert v["hop_phase_w"] == pytest.approx(2.0 * records["arm_phase"].value["p_pi_w"], rel=0.01)
    for name in ("split_w", "combine_w"):
        found, truth, sigma = compared[f"crosstalk_trim.{name}"]
        assert abs(found - truth) < 4.0 * sigma


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"on": "bob.detector", "what": "swapped"}, r"dx0 and dx1 are exchanged: with only dx0 biased, dx1 gives"),
        ({"on": "bob.detector.1", "what": "plateau"}, r"detector dx0: no plateau up to .* uA: .*% per uA; .* limit"),
        ({"on": "fibre", "what": "cut"}, r"no light from the fibre: .* counts/s with .* times the normal light"),
        ({"on": "bob.heater.2", "what": "open"}, r"heater 'phase' is open"),
        ({"on": "bob.shutter", "what": "stuck", "value": 0.0}, r"no light from the fibre"),
    ],
)
def test_broken_parts_are_named(fault: dict[str, Any], why: str) -> None:
    with pytest.raises(BaseExceptionGroup) as e:
        on_emulator(5, None, fault=[{"at": 0.0, **fault}])
    assert e.group_contains(CalibrationRefused, match=why)


async def test_a_detector_that_stays_latched_is_named() -> None:
    b = FakeBob(2)

    async def jammed() -> tuple[float, ...]:
        return (0.001, 0.75, 0.001)

    b.read_bias_voltage = jammed  # type: ignore[method-assign]
    with pytest.raises(CalibrationRefused, match=r"detector dx0 stays latched: 0.75 V at 15 uA after three resets"):
        await bring_up(bob_graph(), b.context(), ["detector_bias"])


async def test_detectors_exchanged_between_two_calibrations_are_named() -> None:
    b = FakeBob(2)
    context = b.context()
    await bring_up(bob_graph(), context, ["detector_delay"])
    b.delay = b.delay[[0, 2, 1]]
    with pytest.raises(CalibrationRefused, match=r"detector_delay: detectors dx0 and dx1 are exchanged: they lag"):
        await bring_up(bob_graph(), context, ["detector_delay"], ["detector_delay"])


async def test_checks_see_what_has_moved() -> None:
    b = FakeBob(3)
    graph, context = bob_graph(), b.context()
    records = await bring_up(graph, context)
    for name in ("arm_phase", "crosstalk_trim", "detector_bias", "basis_split"):
        await graph[name].apply(context, records[name])
    # What the trim moved last stays: the phase's record has the others as they were before.
    await graph["crosstalk_trim"].apply(context, records["crosstalk_trim"])
    for name in ("detector_bias", "basis_split", "arm_phase", "crosstalk_trim"):
        assert (await graph[name].checked(context, records[name])).good, name
    b.heaters.phi0[1] += 0.4
    found = await graph["crosstalk_trim"].checked(context, records["crosstalk_trim"])
    assert found.verdict is Verdict.OUT_OF_SPEC
    assert "short over long arm" in found.why
    b.heaters.phi0[1] -= 0.4
    b.heaters.phi0[2] += 1.2
    found = await graph["arm_phase"].checked(context, records["arm_phase"])
    assert found.verdict is Verdict.OUT_OF_SPEC
    b.latched[1] = True
    found = await graph["detector_bias"].checked(context, records["detector_bias"])
    assert "detector dx0 is latched" in found.why
    assert np.all(b.bias > 0)
