import numpy as np
import pytest

from qmodd.keys.framesync import (
    SUPERFRAME_SLOTS,
    SyncRefused,
    SyncResult,
    acquire,
    fold_delays,
    resolve_superframe,
    sync_bits,
)
from tests.keys.light import PERIOD, clicked_slots, sync_light, tags_of

# Clicks per slot at DZ and DX together; some 100 darks a second a detector, as in the reference pair.
RATES = {0: 0.12, 10: 0.0145, 20: 1.5e-3, 30: 1.5e-4, 35: 4.7e-5}
DELAYS = (0.0, 1350.0, -420.0)


def sync_run(loss_db, seconds, y, seed, dark_per_s=100.0, bits=None):
    """Tags and channels of SYNC light from a random slot on; also (first slot, tag time of its early bin)."""
    rng = np.random.default_rng(seed)
    first = int(rng.integers(0, 2**40))
    slots = clicked_slots(0, int(seconds / (PERIOD * 1e-12)), RATES[loss_db], rng)
    detector, bins = sync_light(sync_bits(slots + first) if bits is None else bits(len(slots), rng), slots, rng)
    t0 = int(rng.integers(10**12, 10**14))
    t, channel = tags_of(slots, detector, bins, t0=t0, y=y, delays=DELAYS, jitter_ps=50, rng=rng)
    darks = rng.integers(t0, t0 + int(seconds * 1e12), rng.poisson(3 * dark_per_s * seconds))
    t = np.concatenate([t, darks])
    order = np.argsort(t, kind="stable")
    channel = np.concatenate([channel, rng.integers(0, 3, len(darks)).astype(np.uint8)])[order]
    return t[order], channel, first, t0


def truth(slot_first, t0, clock, y):
    """Slot error of the clock at its reference tag, in slots."""
    true = slot_first + (clock.tag_ps + clock.frac_ps - t0) / (PERIOD * (1 + y))
    return (true - clock.slot + SUPERFRAME_SLOTS / 2) % SUPERFRAME_SLOTS - SUPERFRAME_SLOTS / 2


@pytest.mark.parametrize(("loss", "seconds"), [(0, 0.01), (10, 0.02), (20, 0.05), (30, 0.1), (35, 0.1)])
def test_right_slot_and_rate_from_0_to_35_db(loss, seconds):
    for seed in range(6):
        y = float(np.random.default_rng(seed).uniform(-4.8e-6, 4.8e-6))
        t, channel, first, t0 = sync_run(loss, seconds, y, seed)
        result = acquire(t[channel == 0])
        assert isinstance(result, SyncResult), (seed, result)
        assert abs(truth(first, t0, result.clock, y)) < 0.02, seed
        assert result.y == pytest.approx(y, abs=4e-9)
        assert min(result.snr_code, result.snr_superframe) > 8


def test_long_run_fixes_the_rate_and_the_hint_fixes_the_slot():
    t, channel, first, t0 = sync_run(20, 0.3, 1.7e-6, 5)
    result = acquire(t[channel == 0])
    assert isinstance(result, SyncResult)
    assert result.y == pytest.approx(1.7e-6, abs=1e-10)
    for hint_error in (-120_000_000, 0, 120_000_000):
        tag = t0 + 3 * 10**12
        slot = first + round(3e12 / (PERIOD * (1 + 1.7e-6)))
        clock = resolve_superframe(result, slot + hint_error, tag)
        assert clock.slot_at(clock.tag_of(slot) + 100) == slot
        assert abs(clock.tag_of(slot) - tag) < PERIOD


def test_delays_are_found_for_each_detector_alone():
    t, channel, *_ = sync_run(20, 0.1, -2e-6, 8)
    result = acquire(t[channel == 0])
    assert isinstance(result, SyncResult)
    fold = fold_delays(t, channel, result.clock)
    assert fold.delays_ps == pytest.approx(DELAYS, abs=6)
    assert sum(fold.counts) == len(t)
    only_one = fold_delays(t[channel != 2], channel[channel != 2], result.clock)
    assert isinstance(only_one, SyncRefused)
    assert "DX1" in only_one.reason


@pytest.mark.parametrize("loss", [10, 20, 30])
def test_key_symbols_are_refused(loss):
    for seed in range(4):
        t, channel, *_ = sync_run(loss, 0.1, 1e-6, seed, bits=lambda n, rng: rng.integers(0, 2, n).astype(np.uint8))
        result = acquire(t[channel == 0])
        assert isinstance(result, SyncRefused)
        assert "public string" in result.reason


def test_a_steady_state_is_refused_even_behind_a_strobe():
    rng = np.random.default_rng(4)
    gates = np.arange(800, dtype=np.int64) * 100_000
    slots = (gates[:, None] + np.flatnonzero(rng.random(1000) < 0.1)).ravel()
    for run in (slots, clicked_slots(0, 10**7, 0.01, rng)):
        t, _ = tags_of(
            run,
            np.zeros(len(run), np.uint8),
            np.zeros(len(run), np.int64),
            t0=0,
            y=1e-6,
            delays=DELAYS,
            jitter_ps=50,
            rng=rng,
        )
        assert isinstance(acquire(t), SyncRefused)


def test_darks_and_too_few_clicks_are_refused():
    rng = np.random.default_rng(1)
    for n in (60, 200, 5000):
        assert isinstance(acquire(np.sort(rng.integers(0, 3 * 10**11, n))), SyncRefused)
    refused = acquire(np.arange(10, dtype=np.int64))
    assert isinstance(refused, SyncRefused)
    assert "10 clicks" in refused.reason
    sparse = acquire(np.sort(rng.integers(0, 10**15, 100)))
    assert isinstance(sparse, SyncRefused)


@pytest.mark.parametrize(("open_slots", "period_slots", "seconds"), [(1000, 100_000, 1.0), (200, 70_001, 2.0)])
def test_a_strobe_does_not_hide_the_frame(open_slots, period_slots, seconds):
    rng = np.random.default_rng(open_slots)
    y = -3.3e-6
    gates = np.arange(int(seconds / (PERIOD * 1e-12)) // period_slots, dtype=np.int64) * period_slots
    seen = rng.random((len(gates), open_slots)) < 0.0145
    g, s = np.nonzero(seen)
    first = 123_456_789
    # The gate opens by Bob's clock, so the slots it shows drift by y.
    slots = np.unique(np.rint((gates[g] + s) / (1 + y)).astype(np.int64))
    detector, bins = sync_light(sync_bits(slots + first), slots, rng)
    t, channel = tags_of(slots, detector, bins, t0=10**12, y=y, delays=DELAYS, jitter_ps=50, rng=rng)
    result = acquire(t[channel == 0])
    assert isinstance(result, SyncResult), result
    assert result.y == pytest.approx(y, abs=2e-9)
    assert abs(truth(first, 10**12, result.clock, y)) < 0.02


def test_public_string_is_the_documented_one():
    def mix(x):
        mask = 2**64 - 1
        x ^= x >> 32
        x = x * 0xD6E8FEB86659FD93 & mask
        x ^= x >> 32
        x = x * 0xD6E8FEB86659FD93 & mask
        return x ^ (x >> 32)

    slots = [0, 1, 2, 65535, 65536, 65537, 2**28 + 65537, 2**40 + 12345, 9 * 65536 + 1]
    expected = [
        (mix((s % 65536) + 0x51C0FFEE) & 1) ^ ((mix((s >> 16) % 4096 + 0xC0DE) & 1) if s % 2 else 0) for s in slots
    ]
    assert list(sync_bits(np.array(slots))) == expected
