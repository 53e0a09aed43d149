"""Pilot slots through the whole emulated pair, and the fibre's own phase: drift, walk, jumps; exchanged cables."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest

from sim.instruments.symbol_source import SymbolSource
from sim.physics.counts import CROSS, DOUBLE, X0, X1, Z0, Z1, Reception, expected
from sim.physics.detectors import jitter_table
from sim.physics.tagger import Receiver
from sim.scenario import Scenario
from sim.scpi import block
from tests.sim.physics.link import accept
from tests.sim.tuned import Pair

Bits = npt.NDArray[np.uint8]
EVERY, GAIN = 16, 10.0
DRIFTS = dict.fromkeys(Scenario().drifts.model_dump(), 0.0)


def scenario(*faults: dict[str, object], **link: float) -> Scenario:
    """No drifts but those of `link`."""
    raw = {"seed": 5, "drifts": DRIFTS, "link": link, "fault": faults, "ambient": {"swing_c": 0.0, "noise_c": 0.0}}
    return Scenario.from_mapping(raw)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair(scenario(pilot_every=EVERY)).tune()


def keying(p: Pair) -> None:
    p.source.start_run()
    p.source.schedule(0, "KEY")
    p.advance(0.1)


def test_a_pair_sends_and_sees_its_pilots(pair: Pair) -> None:
    """Accepted clicks, row by row, are as many as the law says; a tenth of a radian shows with its sign."""
    i = pair.bob.individual
    pair.heat(pair.bob, i.heaters, 2, pair.watts["bob"][2] + 0.1 / math.pi * 0.035)
    pair.advance(0.5)
    keying(pair)
    pair.tagger.start()
    origin = pair.truth.tag_of_slot(0)
    pair.advance(0.25)
    times, channels, upto = pair.tagger.collect()
    local = np.rint((times - origin) / (1.0 + pair.truth.clock_offset())).astype(np.int64)
    how = Receiver(
        np.vstack([i.dead_ps, i.recovery_ps]), np.array([jitter_table(f) for f in i.jitter_fwhm_ps]), i.delay_ps, 800.0
    )
    seen, outcome, _ = accept(local, channels, i.delay_ps, hold=7)
    rows = pair.source.symbols(seen).astype(np.int64)
    rows = 4 * (rows & 1) + (rows & 2) + ((rows & 4) >> 2)
    rows = np.where(seen % EVERY == 0, 8 + (seen // EVERY) % 2, rows)
    n = np.zeros((10, 5))
    np.add.at(n, (rows, outcome), 1)
    law = expected(pair.truth.light(), Reception.of(how, holdoff=7), 0.25, 0.5, EVERY).times(upto * 1e-12)
    m = law.outcomes[:, [Z0, Z1, X0, X1, CROSS]] + np.outer(law.outcomes[:, DOUBLE], [0, 0, 0.5, 0.5, 0])
    m[8:, 2] += 0.5 * law.outcomes[8:, DOUBLE]  # slots of even pilots are even, and so a double click's bit
    m[8:, 3] -= 0.5 * law.outcomes[8:, DOUBLE]
    assert np.all(np.abs(n - m) < 5.0 * np.sqrt(m) + 0.01 * m + 1.0)
    plus, minus = n[8, 2:4], n[9, 2:4]
    contrast = (plus - minus) / (plus + minus)  # DX1, DX0
    # phase_error_deg is phi_A - phi_B: a receiver ahead has it negative, and DX0 then sees more of the first pilot.
    assert contrast[1] > 0.05 > -0.05 > contrast[0]
    assert pair.truth.phase_error_deg < -2.0


def test_the_source_tells_its_pilot_and_never_their_symbols(pair: Pair) -> None:
    device = SymbolSource(pair.source, "S1")

    def ask(message: bytes) -> bytes:
        return device.execute(message + b"\n") or b""

    def nibbles(answer: bytes) -> Bits:
        data = answer[2 + int(answer[1:2]) : -1]
        (crc,) = struct.unpack_from("<I", data, 28)
        assert crc == zlib.crc32(data[32:], zlib.crc32(data[:28]))
        packed = np.frombuffer(data, np.uint8, offset=32)
        return np.stack([packed & 15, packed >> 4], axis=1).ravel()

    assert ask(b"SYMB:PIL?") == b"16,10.0\n"
    assert device.execute(b"SYMB:MODE SYNC\n") is None
    assert device.execute(b"SYMB:RUN\n") is None
    pair.advance(0.01)
    assert not (nibbles(ask(b"SYMB:RANG? 0,64")) & 8).any()  # SYNC has no pilot
    assert device.execute(b"SYMB:MODE KEY\n") is None
    first = pair.source.run_now()[1] // EVERY * EVERY + EVERY
    pair.advance(0.01)
    request = struct.pack("<Q", first) + np.ones(63, "<u4").tobytes()
    answer = nibbles(ask(b"SYMB:READ? " + block(request)))
    assert np.array_equal(answer >= 8, np.arange(64) % EVERY == 0)
    assert ask(b"SYST:ERR?").startswith(b"0")
    device.reset()


def test_without_pilot_it_says_so() -> None:
    assert SymbolSource(Pair(seed=5).source, "S1").execute(b"SYMB:PIL?\n") == b"0,0\n"


def test_the_mean_power_holds_the_pilots(pair: Pair) -> None:
    pair.source.set_probabilities(16384, 32768)
    pair.source.set_rf("carver", pair.alice.individual.carver.v_rf)
    pair.source.set_rf("state", pair.alice.individual.state.v_rf)
    keying(pair)
    between = pair.alice.between_watts()
    with_pilot = pair.alice.present_watts() - between
    pair.source.pilot = (0, 0.0)
    keying(pair)
    without = pair.alice.present_watts() - between
    pair.source.pilot = (EVERY, GAIN)
    photons = pair.truth.light().photons
    shares = np.outer([0.375, 0.375, 0.125, 0.125], [0.5, 0.5]).ravel()
    mean = float(shares @ photons[:8])
    # A pilot is `gain` times a Z signal without the state modulator's leak, hence the 2 %.
    assert with_pilot / without == pytest.approx((15 / 16) + GAIN / 16 * photons[0] / mean, rel=0.02)


def test_no_pilot_leaves_the_world_as_it_was() -> None:
    """The pilot's settings alone, without a pilot, change nothing of a seed's world."""
    seen = []
    for gain in (10.0, 20.0):
        p = Pair(Scenario.from_mapping({"seed": 3, "link": {"pilot_gain_db": gain}}))
        p.power_up(2.0)
        keying(p)
        p.tagger.start()
        p.advance(0.2)
        seen.append((p.tagger.collect()[0].tobytes(), p.alice.photocurrents().tobytes()))
    assert seen[0] == seen[1]


def test_jumps_of_the_fibre_stay_and_add_up() -> None:
    jumps = [{"at": 1.0, "on": "fibre", "what": "jump", "value": v} for v in (0.5, 0.25)]
    later = {"at": 3.0, "on": "fibre", "what": "jump", "value": -10.0}
    p = Pair(scenario(*jumps, later))
    seen = []
    for _ in range(5):
        p.advance(0.9)
        seen.append(p.truth.light().alice.phi - p.truth.light().bob.phi)
    np.testing.assert_allclose(np.subtract(seen, seen[0]), [0.0, 0.75, 0.75, -9.25, -9.25], atol=1e-6)


def test_the_fibre_drifts_as_told() -> None:
    p = Pair(scenario(phase_drift_deg_per_h=360.0))
    p.advance(1.0)
    before = p.truth.light().alice.phi
    p.advance(600.0)
    assert p.truth.light().alice.phi - before == pytest.approx(math.radians(60.0), rel=1e-3)


def test_the_fibre_walks_as_told_and_nothing_else_changes() -> None:
    plain = Pair(Scenario.from_mapping({"seed": 4}))
    walking = Pair(Scenario.from_mapping({"seed": 4, "link": {"phase_walk_rad_per_root_min": 0.1}}))
    seen = []
    for _ in range(400):
        for p in (plain, walking):
            p.advance(1.0)
        seen.append(walking.truth.light().alice.phi - plain.truth.light().alice.phi)
    assert np.diff(seen).std() == pytest.approx(0.1 / math.sqrt(60.0), rel=0.15)
    assert walking.truth.snapshot().loss_db == plain.truth.snapshot().loss_db
    assert walking.world.ambient_c == plain.world.ambient_c


def test_exchanged_cables_exchange_clicks_and_rates() -> None:
    p = Pair(scenario({"at": 200.0, "for": 100.0, "on": "bob.detector", "what": "swapped"})).tune()
    p.source.start_run()
    p.source.schedule(0, "FIX", 2, 0)
    seen = []
    for t in (150.0, 250.0, 310.0):
        p.advance(t - p.clock.t)
        p.tagger.start()
        p.advance(0.05)
        clicks = np.bincount(p.tagger.collect()[1], minlength=3)
        rates = p.bob.detector_rates(0.05)
        np.testing.assert_allclose(rates[1:] / rates[1:].sum(), clicks[1:] / clicks[1:].sum(), atol=0.02)
        seen.append(clicks[1] / clicks[1:].sum())
    assert seen[0] < 0.45 < 0.55 < seen[1]
    assert seen[2] == pytest.approx(seen[0], abs=0.02)
    assert seen[0] + seen[1] == pytest.approx(1.0, abs=0.02)
