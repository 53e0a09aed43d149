import math
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import keys_rate
from benchmarks.keys_rate import Measured, expectation, informed, system_of
from qmodd.rate.model import rates
from qmodd.rate.planner import expected
from sim.individuals import draw_alice, draw_bob
from sim.physics.light import qber
from sim.physics.optics import AliceOptics, BobOptics, table

PLAN = SimpleNamespace(mu=((0.53, 0.55), (0.176, 0.184)))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_parts_give_the_errors_that_the_optics_have_at_their_set_points(seed):
    a, b = draw_alice(seed), draw_bob(seed)
    system = system_of(a, b, PLAN)
    long = 10 ** (-b.long_db / 10)
    alice = AliceOptics(leak_c=a.carver.xi**2, xi_s=a.state.xi, leak_d=a.decoy.xi**2, long=10 ** (-a.long_db / 10))
    receiver = {"common": 1.0, "z": 1.0, "x": 1.0, "long": long, "v_mode": b.v_mode, "leak_b": 0.0}
    at = [qber(table(alice, BobOptics(phi=phi, **receiver), 0.0))[1] for phi in np.linspace(0, 2 * math.pi, 721)]
    # Reference pair A5: the floor of X is where the phase is best; Z does not depend on it.
    assert system.receiver.error_x == pytest.approx(min(at), rel=0.02)
    assert system.source.error_z == pytest.approx(qber(table(alice, BobOptics(**receiver), 0.0))[0], rel=0.02)
    assert system.source.mu == pytest.approx((0.54, 0.18))
    assert system.source.mu_uncertainty == pytest.approx((0.01 / 0.54, 0.004 / 0.18))


def test_what_the_light_really_was_replaces_the_parts_errors():
    system = system_of(draw_alice(1), draw_bob(1), PLAN)
    told = informed(system, Measured(optics=[(0.01, 0.03), (0.02, 0.05)]))
    assert (told.source.error_z, told.receiver.error_x) == pytest.approx((0.015, 0.04))
    assert informed(system, Measured()) == system


def test_the_mean_over_drawn_blocks_is_near_the_length_of_the_mean(monkeypatch):
    monkeypatch.setattr(keys_rate, "DRAWS", 40)
    system = system_of(draw_alice(1), draw_bob(1), PLAN)
    mean, scatter = expectation(system, rates(system, 10.0), 1_966_080)
    assert mean == pytest.approx(expected(system, 10.0, 1_966_080, keys_rate._leak).length_bits, rel=0.03)
    assert 0.0 < scatter < 0.05 * mean


def test_published_links_have_a_limit_unless_something_was_assumed(tmp_path, monkeypatch):
    results = list(keys_rate.published())
    assert len(results) == 5
    assert all(r.limit is None and "assumed" in r.note for r in results)
    assert all(r.value > 0 and r.detail["published_bps"] > 0 for r in results)
    text = (keys_rate.PUBLISHED / "boaron2018.toml").read_text()
    one = text.split("[[published]]")
    (tmp_path / "sure.toml").write_text(f"{one[0]}[[published]]{one[1]}".replace("ASSUMED", "Published"))
    monkeypatch.setattr(keys_rate, "PUBLISHED", tmp_path)
    (sure,) = keys_rate.published()
    assert sure.limit == pytest.approx((1 / 1.3, 1.3))
    assert sure.ok == (1 / 1.3 <= sure.value <= 1.3)
