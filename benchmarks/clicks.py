"""The emulator's click sampler: photo-detections by thinning, then detectors."""

from __future__ import annotations

import numpy as np

from benchmarks.light import BIN_PS, DELAYS_PS, PERIOD_PS, SLOTS_PER_S, Bits, Floats, Sampler, symbols
from benchmarks.measure import Result, best_of, must_agree
from sim.physics.clicks import DETECTOR_OF_CELL, LEAD, PILOTS, PULSED_CELLS, cell_offsets
from sim.physics.random64 import state_from

SLOTS = SLOTS_PER_S // 2
PILOT_EVERY = 16


def numpy_photodetections(cumulative: Floats, slots: int, generator: np.random.Generator) -> tuple[Floats, Bits]:
    """The same thinning, vectorised: sorted times (ps from slot 0) and detectors."""
    top = float(cumulative[0, :PILOTS, -1].max())
    expected = slots * top
    gaps = generator.exponential(1.0 / top, int(expected + 10 * np.sqrt(expected) + 10))
    slot = np.cumsum(gaps).astype(np.int64)
    slot = slot[slot < slots]
    nibbles = symbols(slot)
    row = 4 * (nibbles & 1) + (nibbles & 2) + ((nibbles & 4) >> 2)
    r = generator.random(len(slot)) * top
    cell = (r[:, None] >= cumulative[0][row]).sum(axis=1)
    kept = cell < cumulative.shape[2]
    slot, cell = slot[kept], cell[kept]
    offsets = np.concatenate([cell_offsets(BIN_PS, np.array(DELAYS_PS)), np.zeros(cumulative.shape[2] - PULSED_CELLS)])
    times = slot * PERIOD_PS + offsets[cell]
    spread = cell >= PULSED_CELLS
    times[spread] += (generator.random(int(spread.sum())) - LEAD) * PERIOD_PS
    order = np.argsort(times, kind="stable")
    return times[order], DETECTOR_OF_CELL[cell[order]].astype(np.uint8)


def run(slots: int = SLOTS, times: int = 3) -> list[Result]:
    """Clicks a second of computing at 10 dB; the reference draws in numpy and shares the detectors."""
    sampler = Sampler()
    compiled = best_of(lambda: sampler.block(slots), times)
    found = len(sampler.block(slots)[0])

    def reference() -> int:
        generator = np.random.Generator(np.random.Philox(2))
        drawn, detectors = numpy_photodetections(sampler.cumulative, slots, generator)
        n = len(drawn)
        sampler.times[:n], sampler.detectors[:n] = drawn, detectors
        return len(sampler.clicks(n, slots, state_from(generator))[0])

    plain = best_of(reference, times)
    other = reference()
    must_agree("click sampler", abs(found - other) < 6 * np.sqrt(found + other))
    detail = {"pulses_mhz": slots / compiled / 1e6, "clicks_count": float(found)}
    return [
        Result("click_sampler", found / compiled / 1e6, "Mclick/s", other / plain / 1e6, "numpy draws", detail=detail),
        with_pilot(slots, times, compiled, found),
    ]


def with_pilot(slots: int, times: int, without: float, clicks: int) -> Result:
    """Cost of a click where every 16th slot is ten times as bright as a signal, beside `clicks` in `without` s."""
    sampler = Sampler(pilot_every=PILOT_EVERY)
    taken = best_of(lambda: sampler.block(slots), times)
    tags, channels = sampler.block(slots)
    slot = np.floor((tags - np.array(DELAYS_PS)[channels] + BIN_PS) / PERIOD_PS).astype(np.int64)
    ordinary = int(np.count_nonzero(slot % PILOT_EVERY))
    # Fewer than a sixteenth are missing by the pilots' slots, some more by their dead time.
    must_agree("clicks beside pilots", 0.75 * clicks < ordinary < (1.0 - 1.0 / PILOT_EVERY) * clicks)
    detail = {
        "pulses_mhz": slots / taken / 1e6,
        "clicks_count": float(len(tags)),
        "pilot_share": 1.0 - ordinary / len(tags),
        "core_share_at_125_mhz": taken * SLOTS_PER_S / slots,
        "core_share_without": without * SLOTS_PER_S / slots,
    }
    value, reference = 1e9 * taken / len(tags), 1e9 * without / clicks
    return Result("click_sampler_pilot", value, "ns/click", reference, "no pilot", less_is_better=True, detail=detail)
