import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import differential_evolution

from qmodd.rate.optimise import RANGES, climb, optimise, settings_of, with_settings
from qmodd.rate.planner import expected
from qmodd.rate.system import Keys, Source, System


@pytest.mark.parametrize(("loss_db", "n_z"), [(0.0, 983_040), (20.0, 983_040), (40.0, 200_000)])
def test_as_good_as_a_global_search(loss_db, n_z):
    found = optimise(System(), loss_db, n_z)

    def lost(values):
        return -expected(with_settings(System(), dict(zip(RANGES, values, strict=True))), loss_db, n_z).skr_bps

    best = differential_evolution(lost, list(RANGES.values()), seed=1, popsize=8, maxiter=25, polish=False)
    assert found.expectation.skr_bps >= 0.995 * -best.fun
    assert found.expectation.skr_bps >= found.present.skr_bps


def test_settings_stay_in_their_ranges_and_give_what_is_promised():
    for loss in (3.0, 25.0, 48.0):
        p = optimise(System(), loss)
        assert p.settings.keys() == RANGES.keys()
        for name, value in p.settings.items():
            assert RANGES[name][0] - 1e-9 <= value <= RANGES[name][1] + 1e-9
        assert expected(with_settings(System(), p.settings), loss).skr_bps == pytest.approx(p.expectation.skr_bps)


def test_what_is_fixed_stays():
    p = optimise(System(), 10.0, fixed=["basis_split", "p_x"])
    assert p.settings["basis_split"] == System().receiver.basis_split
    assert p.settings["p_x"] == System().source.p_x
    assert p.expectation.skr_bps > p.present.skr_bps
    everything = optimise(System(), 10.0, fixed=list(RANGES))
    assert everything.settings == settings_of(System())
    with pytest.raises(ValueError, match="no setting 'colour'"):
        optimise(System(), 10.0, fixed=["colour"])


def test_a_link_without_key_keeps_what_it_has():
    p = optimise(System(), 100.0)
    assert p.expectation.skr_bps == 0.0
    assert p.settings == settings_of(System())


def test_two_decoys_keep_the_third_intensity():
    three = System(
        source=Source(mu=(0.55, 0.2, 0.002), p_mu=(0.5, 0.3, 0.2), mu_uncertainty=()),
        keys=Keys(proof="lim2014", n_z=5_000_000),
    )
    p = optimise(three, 10.0)
    assert p.system.source.mu[2] == 0.002
    assert p.system.source.p_mu[2] == pytest.approx(0.2)
    assert sum(p.system.source.p_mu) == pytest.approx(1.0)
    assert p.expectation.skr_bps >= p.present.skr_bps


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.05, 0.95), min_size=1, max_size=4), st.floats(0.1, 10.0))
def test_climb_finds_the_top_of_a_hill(top, steep):
    def hill(x):
        return -steep * sum((a - b) ** 2 for a, b in zip(x, top, strict=True))

    n = len(top)
    assert climb(hill, [0.5] * n, [0.0] * n, [1.0] * n) == pytest.approx(top, abs=2e-3)


def test_climb_stays_where_nothing_is_defined():
    def nowhere(_):
        raise ValueError("not here")

    assert climb(nowhere, [0.3, 0.4], [0.0, 0.0], [1.0, 1.0]) == [0.3, 0.4]
