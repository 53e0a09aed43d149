"""What the transmitter's calibrations say: figures, checks, diagnoses by name, and those that keys do not rest on."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest

from calibration.chance import upper_tail
from calibration.context import CalibrationContext, CalibrationRefused
from calibration.crosstalk import Matrix, adjust
from calibration.fit import FitRefused, added, fit_fringe, judged, linear
from calibration.graph import bring_up
from calibration.names import HEATERS
from calibration.noise import NOMINAL, amplifier_variants, power_variants, reading_noise
from calibration.procedure import Verdict
from calibration.procedures import alice_graph
from calibration.procedures.heater_iv import HeaterIV
from calibration.procedures.log_tia import steepness
from calibration.procedures.path_loss import PathLoss
from calibration.procedures.patterning import PatternCounts, Patterning, pattern, widest
from calibration.procedures.sweeps import UNEVEN
from drivers.roles import LightMode
from tests.calibration.fakes import FakeAlice


async def calibrated(seed: int = 3) -> tuple[FakeAlice, CalibrationContext]:
    a = FakeAlice(seed)
    context = a.context()
    await bring_up(alice_graph(), context)
    return a, context


# ---------------------------------------------------------------- chance, noise


def test_tails_of_chi_square() -> None:
    for chi2, dof, tail in ((3.841, 1, 0.05), (9.488, 4, 0.05), (18.307, 10, 0.05), (0.711, 4, 0.95), (0.0, 3, 1.0)):
        assert upper_tail(chi2, dof) == pytest.approx(tail, abs=2e-4)


def test_scatter_is_judged_on_both_sides() -> None:
    rng = np.random.default_rng(1)
    x = np.linspace(0, 1, 12)
    design = np.stack([np.ones(12), x], axis=1)
    noise = 0.01 * rng.normal(size=12)
    good = linear(design, x + noise, np.full(12, 0.01), absolute=True)
    assert judged(good) is good
    assert good.dof == 10
    assert good.residuals == pytest.approx(x + noise - design @ good.parameters)
    with pytest.raises(FitRefused, match="times as much as their noise explains"):
        judged(linear(design, x + noise, np.full(12, 0.001), absolute=True), "line")
    with pytest.raises(FitRefused, match="too good to be readings"):
        judged(linear(design, x + noise, np.full(12, 10.0), absolute=True), "line")
    assert judged(linear(design, x + noise, np.full(12, 10.0), absolute=True), bounded=True).dof == 10
    wide = linear(design, x + noise, np.full(12, 0.004), absolute=True)
    assert judged(wide).covariance == pytest.approx(wide.covariance * wide.reduced_chi2)


def test_a_fringe_with_a_scatter_beyond_its_noise_is_refused() -> None:
    x = UNEVEN * 0.11
    y = 1 + 0.9 * np.cos(1.0 + pi * x / 0.04) + 0.03 * np.random.default_rng(2).normal(size=8)
    with pytest.raises(FitRefused, match="noise explains"):
        fit_fringe(x, y, 0.026, 0.056, sigma=np.full(8, 0.002))
    assert fit_fringe(x, y, 0.026, 0.056, sigma=np.full(8, 0.002), absolute=False).x_pi == pytest.approx(0.04, rel=0.02)


def test_what_readings_share_is_added() -> None:
    covariance = added(lambda y: np.array([y.mean(), 0.0]), np.ones(4), [np.full(4, 1.1), np.full(4, 0.8)])
    assert covariance == pytest.approx(np.array([[0.01 + 0.04, 0.0], [0.0, 0.0]]))


async def test_noise_is_measured_and_falls_back_to_nominal() -> None:
    a = FakeAlice(1, noise=0.004)
    context = a.context()
    assert reading_noise(context).of("pa0") == NOMINAL
    assert power_variants(context, "filter", np.array([0.01])) == []
    await bring_up(alice_graph(), context, targets=["filter_peak"])
    noise = reading_noise(context)
    assert noise.of("pa0") == pytest.approx(0.004, rel=0.35)
    assert noise.of("pa0", 16) == pytest.approx(noise.of("pa0") / 4)
    assert noise.share("pa0", 1e-6, 4) == pytest.approx(noise.of("pa0", 4), rel=0.01)
    low, high = amplifier_variants(context, "pa0", np.array([1e-8, 1e-6]))
    assert low == pytest.approx([1e-8, 1e-6], rel=0.01)
    assert high == pytest.approx([1.003e-8, 1.003e-6], rel=1e-6)
    powers = np.array([0.0, 0.05, 0.1])
    for moved in power_variants(context, "filter", powers):
        assert moved[0] == 0.0
        assert 0.0 < np.abs(moved - powers).max() < 5e-4


# ---------------------------------------------------------------- the whole set


async def test_every_calibration_shows_what_it_read_and_states_its_model() -> None:
    _, context = await calibrated()
    for procedure in alice_graph():
        if procedure.name == "tec_plant":
            continue  # needs a plant behind its TEC: tests/calibration/test_tec_plant.py
        if context.store.active(procedure.name) is None:
            assert procedure.deferred
            await bring_up(alice_graph(), context, targets=[procedure.name])
        record = context.record(procedure.name)
        raw = context.raw.get(record.raw_sha256)
        assert raw is not None
        assert procedure.equation
        assert procedure.figures(record, raw)
        assert all(record.sigma(n) > 0.0 for n in record.covariance_names)


async def test_every_check_passes_on_what_was_just_found() -> None:
    a, context = await calibrated(4)
    for procedure in alice_graph():
        record = context.store.active(procedure.name)
        if record is not None:
            assert (await procedure.checked(context, record)).good, procedure.name
    assert a.source.mode is LightMode.OFF


async def test_the_matrix_is_that_of_the_chip_and_moves_one_phase_at_a_time() -> None:
    a, context = await calibrated(5)
    record = context.record("crosstalk")
    matrix = Matrix.of(record, HEATERS["alice"])
    for i, seen in enumerate(HEATERS["alice"]):
        for j, heated in enumerate(HEATERS["alice"]):
            assert record.value[f"theta_{seen}_{heated}"] == pytest.approx(a.heaters.theta[i, j], abs=0.012)
    before = [a.heaters.phase(n) for n in HEATERS["alice"]]
    for name, step in adjust(matrix, {"filter": 0.5}).items():
        await context.drive.set_power(name, context.drive.power(name) + step)
    moved = np.array([a.heaters.phase(n) for n in HEATERS["alice"]]) - before
    assert moved == pytest.approx([0.5, 0.0, 0.0, 0.0], abs=0.01)


# ---------------------------------------------------------------- checks


async def test_checks_say_which_part_has_moved() -> None:
    a, context = await calibrated(6)
    graph = alice_graph()

    async def why(name: str) -> str:
        found = await graph[name].checked(context, context.record(name))
        assert found.verdict is not Verdict.IN_SPEC
        return found.why

    a.v0["carver"] += 0.8
    assert "carver: its null is" in await why("carver_bias")
    a.v0["carver"] -= 0.8
    a.v0["state"] += 0.8
    assert "state: its null is" in await why("state_bias")
    assert "Q(X0)/Q(X1)" in await why("state_trim")
    a.v0["state"] -= 0.8
    a.v0["decoy"] += 0.4
    assert "intensity ratio" in await why("decoy")
    a.v0["decoy"] -= 0.4
    a.heaters.phi0[0] += 0.8
    assert "the filter lets through" in await why("filter_peak")
    assert "bright Z0" in await why("mean_photon")
    a.heaters.phi0[0] -= 0.8
    a.heaters.phi0[1] += 1.2
    assert "early over late" in await why("amzi_split")
    assert "early over late" in await why("crosstalk")
    a.heaters.phi0[1] -= 1.2
    a.heaters.phi0[3] += 0.5
    assert "cross port" in await why("shutter")
    assert "cross port" in await why("crosstalk")
    a.heaters.phi0[3] -= 0.5
    a.heaters.r0[2] *= 1.1
    assert "heater 'phase'" in await why("heater_iv")
    a.heaters.r0[2] /= 1.1
    a.laser.frequency += 5e9
    assert "GHz" in await why("laser")
    a.laser.frequency -= 5e9
    a.laser.power += 1.0
    assert "dB off" in await why("laser")
    a.laser.emitting = False
    assert "not emitting" in await why("laser")
    a.dark_a *= 20
    assert "in the dark" in await why("photodiode_zero")


async def test_a_heater_that_changes_during_its_fringe_is_named() -> None:
    a = FakeAlice(7)
    context = a.context()
    await bring_up(alice_graph(), context, targets=["laser", "heater_iv"])
    a.heaters.r0[0] *= 1.05
    with pytest.raises(FitRefused, match=r"heater 'filter': .* from its record"):
        await alice_graph()["filter_peak"].calibrate(context)


@pytest.mark.parametrize(
    ("diode", "procedure"), [("pa0", "filter_peak"), ("pa1", "carver_bias"), ("pa3", "state_bias"), ("pa4", "shutter")]
)
async def test_a_dead_photodiode_is_named(diode: str, procedure: str) -> None:
    a = FakeAlice(1)
    a.dead = frozenset({diode})
    with pytest.raises(CalibrationRefused, match=f"{procedure}: photodiode {diode} is dead"):
        await bring_up(alice_graph(), a.context())


async def test_a_ballast_is_measured_too() -> None:
    a = FakeAlice(2)
    a.heaters.channels = ("filter", "split", "phase", "shutter", "ballast")
    a.heaters.amperes = dict.fromkeys(a.heaters.channels, 0.0)
    a.heaters.open = frozenset({"ballast"})
    with pytest.raises(CalibrationRefused, match="heater 'ballast' is open"):
        await HeaterIV().calibrate(a.context())


# ---------------------------------------------------------------- not for keys


async def test_amplifier_slopes_and_table_and_paths() -> None:
    a, context = await calibrated(8)
    await bring_up(alice_graph(), context, targets=["log_tia", "voa", "path_loss"])
    law = context.factory.photodiode("pa3")
    found = context.record("log_tia")
    assert found.value["pa3_slope_v_per_decade"] == pytest.approx(law.log_slope_v_per_decade, rel=1e-3)
    assert steepness(context, "pa3").slope_sigma < law.log_slope_relative_sigma
    assert steepness(context, "pa3").corrected(1e-7) == pytest.approx(1e-7, rel=0.01)
    assert a.laser.power == 13.0
    loss = context.record("path_loss").value
    assert loss["filter_db"] == pytest.approx(0.0, abs=0.3)
    assert loss["state_extinction_db"] == pytest.approx(22.0, abs=0.5)
    assert context.record("voa").value["db_2500"] == pytest.approx(0.8 + 2.5 + 1.35 * 2.5**2, abs=1e-6)


async def test_a_path_that_loses_too_much_or_a_table_with_a_wrong_entry_is_named() -> None:
    a, context = await calibrated(9)
    record = context.record("decoy")
    context.store.append(record.model_copy(update={"value": record.value | {"extinction": 0.05}}))
    with pytest.raises(CalibrationRefused, match=r"decoy: extinction 13\.0 dB"):
        await PathLoss().calibrate(context)
    assert context.factory.voa is not None
    db = list(context.factory.voa.db)
    db[20] += 0.1
    table = context.factory.voa.model_copy(update={"db": tuple(db)})
    context.factory = context.factory.model_copy(update={"voa": table})
    with pytest.raises((CalibrationRefused, FitRefused), match=r"the table says|attenuator table"):
        await alice_graph()["voa"].calibrate(context)
    assert a.time.now > 0


async def test_patterning_widens_the_intervals() -> None:
    _, context = await calibrated(10)
    with pytest.raises(CalibrationRefused, match="counted in service"):
        await Patterning().calibrate(context)
    assert widest(context) == {}
    rng = np.random.default_rng(1)
    p, true = np.array([0.5, 0.5]), np.array([[0.004, -0.004], [-0.008, 0.008]])
    counts = rng.poisson(np.array([[2e7], [7e6]]) * p * (1 + true))
    record = await Patterning().from_counts(context, PatternCounts(counts, (0.5, 0.5)))
    ratios, covariance = pattern(PatternCounts(counts, (0.5, 0.5)))
    assert np.abs(ratios - true).max() < 5 * np.sqrt(np.diag(covariance)).max()
    before = context.record("mean_photon").value
    context.store.append(record)
    assert widest(context)["decoy"] == pytest.approx(0.008, abs=0.003)
    await bring_up(alice_graph(), context, force=["mean_photon"])
    after = context.record("mean_photon").value
    wide = after["mu_decoy_high"] / after["mu_decoy"] - before["mu_decoy_high"] / before["mu_decoy"]
    assert 0.004 < wide < 0.014
    with pytest.raises(CalibrationRefused, match="5% is the limit"):
        await Patterning().from_counts(
            context, PatternCounts(np.array([[6e6, 4e6], [3e6, 3e6]]).astype(int), (0.5, 0.5))
        )
    with pytest.raises(CalibrationRefused, match="needed"):
        pattern(PatternCounts(np.full((2, 2), 10), (0.5, 0.5)))
    assert Patterning().figures(record, {})
