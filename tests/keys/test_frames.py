from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.keys import acceptance, frames
from qmodd.keys.frames import FrameBuilder, FrameClock, FrameCounters, Gates, gate_closed_ranges, holdoff_slots
from tests.keys.light import clicked_slots, tags_of

T = 8000
NO_DELAYS = (0.0, 0.0, 0.0)


def zeros(n):
    return bytes(n)


def reference(t, channel, t0, delays, holdoff, first, end, dropped=frozenset(), bin_ps=800, half=200, lead=800):
    """The rule of reference pair A1, slot by slot."""
    clicks = {}
    for tag, d in zip(t, channel, strict=True):
        x = tag - t0 - delays[d]
        slot = int(np.floor((x + lead) / T))
        clicks.setdefault(slot, []).append((int(d), x - slot * T))
    accepted, live = {}, 0
    for slot in range(first, end):
        dead = slot < first + holdoff or any(slot - k in clicks for k in range(1, holdoff + 1))
        if slot in dropped:
            continue
        live += not dead
        if dead or slot not in clicks:
            continue
        zs, xs, bad = [], set(), False
        for d, r in sorted(clicks[slot], key=lambda c: c[1]):
            b = round(r / bin_ps)
            gated = abs(r - b * bin_ps) <= half
            if gated and d == 0 and b in (0, 1):
                zs.append(b)
            elif gated and d > 0 and b == 1:
                xs.add(d)
            else:
                bad = True
        if bad:
            continue
        if zs and xs:
            accepted[slot] = "cross"
        elif zs:
            accepted[slot] = ("Z", zs[0])
        else:
            accepted[slot] = "double" if len(xs) == 2 else ("X", 2 - xs.pop())
    return accepted, live


def observed(batches):
    out = {}
    for b in batches:
        for s, basis, bit in zip(b.slots, b.basis, b.bit, strict=True):
            out[int(s)] = ("ZX"[basis], int(bit))
    return out


def run(builder, t, channel, clock, borders, random_bytes=zeros, **more):
    batches, start = [], 0
    for border in borders:
        stop = int(np.searchsorted(t, border))
        batches.append(builder.push(t[start:stop], channel[start:stop], border, clock, random_bytes, **more))
        start = stop
    return batches


def total(batches):
    counters = FrameCounters()
    for b in batches:
        counters = counters + b.counters
    return counters


@st.composite
def click_lists(draw):
    n = draw(st.integers(0, 60))
    t = sorted(draw(st.lists(st.integers(T, 60 * T), min_size=n, max_size=n)))
    channel = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    near = draw(st.booleans())
    if near:  # on bin centres, so that much is accepted
        t = sorted(T * (x // T) + 800 * (x % 3) + x % 150 for x in t)
    borders = sorted(draw(st.lists(st.integers(0, 60 * T), max_size=4)))
    return np.array(t, np.int64), np.array(channel, np.uint8), [*borders, 62 * T]


@settings(max_examples=150, deadline=None)
@given(
    click_lists(),
    st.integers(0, 6),
    st.sampled_from([NO_DELAYS, (0.0, 1350.0, 2900.0), (0.0, -700.0, 40.0)]),
    st.lists(st.tuples(st.integers(0, 70), st.integers(0, 12)), max_size=3),
)
def test_rule_equals_slow_reference_over_any_batches(clicks, holdoff, delays, flagged):
    t, channel, borders = clicks
    t = t + 10**13
    drop = [(a, a + n) for a, n in flagged]
    builder = FrameBuilder(Gates(), holdoff, delays, 0)
    batches = run(builder, t, channel, FrameClock(0, 10**13, 0.0, float(T)), [10**13 + b for b in borders], drop=drop)
    dropped = frozenset(s for a, b in drop for s in range(a, b))
    accepted, live = reference(t, channel, 10**13, delays, holdoff, 0, builder.next_slot, dropped)
    assert builder.next_slot >= 62 - 2
    seen = observed(batches)
    assert seen.keys() == accepted.keys()
    for slot, what in accepted.items():
        if isinstance(what, tuple):
            assert seen[slot] == what
    c = total(batches)
    assert c.live_slots == live
    assert c.cross == sum(v == "cross" for v in accepted.values())
    assert c.double_x == sum(v == "double" for v in accepted.values())
    assert c.dropped_slots == len([s for s in dropped if s < builder.next_slot])
    assert all(a.end_slot == b.first_slot for a, b in pairwise(batches))


def use_uncompiled(monkeypatch):
    for name in ("place_clicks", "count_live", "read_slot", "accept_slots"):
        plain = getattr(acceptance, name).py_func
        monkeypatch.setattr(acceptance, name, plain)
        if hasattr(frames, name):
            monkeypatch.setattr(frames, name, plain)


def test_compiled_and_uncompiled_kernels_agree(monkeypatch):
    rng = np.random.default_rng(3)
    slots = clicked_slots(0, 3000, 0.2, rng)
    t, channel = tags_of(
        slots,
        rng.integers(0, 3, len(slots)).astype(np.uint8),
        rng.integers(0, 3, len(slots)),
        t0=5000,
        y=0,
        delays=(0.0, 300.0, 1200.0),
        jitter_ps=60,
        rng=rng,
    )
    clock = FrameClock(0, 5000, 0.0, float(T))

    def once():
        return run(
            FrameBuilder(Gates(), 5, (0.0, 300.0, 1200.0), 0),
            t,
            channel,
            clock,
            [10**7, 3 * 10**7],
            rng_bytes,
            drop=[(100, 220), (3100, 3200)],
        )

    def rng_bytes(n):
        return bytes((37 * i + 11) % 256 for i in range(n))

    compiled = once()
    use_uncompiled(monkeypatch)
    plain = once()
    for a, b in zip(compiled, plain, strict=True):
        assert a.counters == b.counters
        assert a.tracking == b.tracking
        np.testing.assert_array_equal(a.slots, b.slots)
        np.testing.assert_array_equal(a.bit, b.bit)
        np.testing.assert_array_equal(a.basis, b.basis)
    assert total(compiled).satellites[3] > 0


@pytest.mark.parametrize("compiled", [True, False])
def test_cross_and_double_clicks_take_the_bits_they_are_given(compiled, monkeypatch):
    if not compiled:
        use_uncompiled(monkeypatch)
    # slot 10: DZ early and DX1 middle; slot 30: DX0 and DX1 middle; slot 50: DX1 alone, slot 70: DX0 alone
    t = np.array([10 * T, 10 * T + 800, 30 * T + 800, 30 * T + 801, 50 * T + 800, 70 * T + 800], np.int64)
    channel = np.array([0, 2, 1, 2, 2, 1], np.uint8)
    asked = []

    def draw(n):
        asked.append(n)
        return bytes([0b10100000])

    batch = FrameBuilder(Gates(), 5, NO_DELAYS, 0).push(t, channel, 90 * T, FrameClock(0, 0, 0.0, float(T)), draw)
    assert asked == [1]
    assert observed([batch]) == {10: ("X", 1), 30: ("X", 0), 50: ("X", 0), 70: ("X", 1)}
    assert (batch.counters.cross, batch.counters.double_x) == (1, 1)


def test_random_bases_and_bits_are_balanced():
    n = 4000
    slots = np.repeat(np.arange(1, n + 1, dtype=np.int64) * 8, 2)
    t = slots * T + np.tile([0, 800], n)
    channel = np.tile(np.array([0, 2], np.uint8), n)
    rng = np.random.default_rng(1)
    batch = FrameBuilder(Gates(), 5, NO_DELAYS, 0).push(
        t, channel, 8 * T * (n + 2), FrameClock(0, 0, 0.0, float(T)), rng.bytes
    )
    assert len(batch.slots) == n == batch.counters.cross
    table = np.bincount(2 * batch.basis + batch.bit, minlength=4)
    assert np.all(np.abs(table - n / 4) < 5 * np.sqrt(n * 3 / 16))


def test_lost_data_are_dropped_with_the_holdoff_after_them_even_across_batches():
    builder = FrameBuilder(Gates(), 5, (0.0, 1000.0, 2000.0), 0)
    clock = FrameClock(0, 0, 0.0, float(T))
    none = np.empty(0, np.int64), np.empty(0, np.uint8)
    first = builder.push(*none, 100 * T, clock, zeros, lost_ps=[(90 * T, 100 * T)])
    second = builder.push(*none, 200 * T, clock, zeros)
    lost = first.counters.dropped_slots + second.counters.dropped_slots
    assert 10 + 5 <= lost <= 10 + 5 + 3
    assert second.counters.dropped_slots >= 5
    assert first.counters.live_slots + second.counters.live_slots + lost == builder.next_slot - 5


@pytest.mark.parametrize("compiled", [True, False])
def test_a_clock_that_moved_back_between_batches_repeats_no_slot(compiled, monkeypatch):
    if not compiled:
        use_uncompiled(monkeypatch)
    builder = FrameBuilder(Gates(), 0, NO_DELAYS, 0)
    t = np.array([20 * T - 790, 21 * T], np.int64)
    channel = np.zeros(2, np.uint8)
    a = builder.push(t[:0], channel[:0], 20 * T - 800, FrameClock(0, 0, 0.0, float(T)), zeros)
    b = builder.push(t, channel, 40 * T, FrameClock(0, 0, 30.0, float(T)), zeros)
    assert a.end_slot == b.first_slot == 20
    assert list(b.slots) == [21]
    assert b.counters.out_of_gate == 1


def test_clicks_that_delays_put_out_of_order_are_sorted():
    t = np.array([1000, 2000, 2100], np.int64)
    slots, residue, order = np.zeros(3, np.int64), np.zeros(3), np.zeros(3, np.int64)
    acceptance.place_clicks.py_func(
        t, np.array([0, 1, 2], np.uint8), 0, 0.5, np.array([0.0, 1500.0, 3000.0]), 8000.0, 1000.0, slots, residue, order
    )
    assert list(order) == [2, 1, 0]
    assert list(residue) == [-900.5, 499.5, 999.5]


def test_residuals_tell_the_phase():
    rng = np.random.default_rng(2)
    slots = clicked_slots(0, 20000, 0.05, rng)
    t, channel = tags_of(
        slots,
        np.zeros(len(slots), np.uint8),
        rng.integers(0, 2, len(slots)),
        t0=40,
        y=0,
        delays=NO_DELAYS,
        jitter_ps=30,
        rng=rng,
    )
    batch = FrameBuilder(Gates(), 5, NO_DELAYS, 0).push(t, channel, 20000 * T, FrameClock(0, 0, 0.0, float(T)), zeros)
    assert batch.tracking.sum_ps[0] / batch.tracking.count[0] == pytest.approx(40, abs=5)
    assert batch.tracking.count[0] > 900
    assert batch.tracking.count[1] == 0


def test_strobe_closed_ranges_leave_only_fully_seen_slots():
    clock = FrameClock(1000, 123_456, 0.25, 8000.01)
    ranges = gate_closed_ranges(100 * T, 1000 * T, clock, 1000, 6000, 5)
    merged = frames.merge_ranges(ranges, 1000)
    closed = {s for a, b in merged for s in range(a, b)}
    open_slots = [s for s in range(1000, 6000) if s not in closed]
    assert 4.5 * 90 < len(open_slots) < 5.5 * 95
    for s in open_slots:
        phase = clock.tag_of(s) % (1000 * T)
        assert 5 * T <= phase < 99 * T
    assert len(gate_closed_ranges(0, 0, clock, 0, 10, 5)) == 0


def test_clock_arithmetic_keeps_a_fraction_of_a_picosecond_after_a_day():
    clock = FrameClock(7, 86_400 * 10**12 + 3, 0.25, 8000.0008)
    far = clock.moved_to(7 + 125_000_000)
    assert (far.tag_ps - clock.tag_ps) + far.frac_ps == pytest.approx(0.25 + 125_000_000 * 8000.0008, abs=1e-3)
    assert clock.slot_at(clock.tag_of(500) + 10) == 500
    assert clock.slot_at(clock.tag_of(500) - 10) == 499


def test_holdoff_of_the_reference_detectors():
    assert holdoff_slots(15e3, 4e3, 800, 8000) == 5
    assert holdoff_slots(20e3, 5e3, 800, 8000) == 6
    assert holdoff_slots(15e3, 4e3, 800, 16000) == 2
    assert holdoff_slots(15e3, 4e3, 800, 32000) == 1


def test_unknown_channels_are_refused():
    builder = FrameBuilder(Gates(), 5, NO_DELAYS, 0)
    clock = FrameClock(0, 0, 0.0, float(T))
    with pytest.raises(ValueError, match="channels"):
        builder.push(np.array([1], np.int64), np.array([3], np.uint8), 10, clock, zeros)
    with pytest.raises(ValueError, match="channels"):
        builder.push(np.array([1], np.int64), np.empty(0, np.uint8), 10, clock, zeros)
