"""Frame synchronisation from photons and a public string (reference pair B3). Bob's side sees tags only.

In SYNC mode Alice sends Z signal states after a public string: even slot s the bit C1[s mod 65536], odd slot
C1[s mod 65536] xor C2[(s div 65536) mod 4096]. From DZ tags alone follow the slot period on Bob's clock, the phase, and
the slot number modulo 2^28 (2.1 s at 8 ns). Anything that is not this string (key symbols, darks) is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor, log, pi, sqrt

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bits = npt.NDArray[np.uint8]

CODE_SLOTS = 65536
SUPERFRAMES = 4096
SUPERFRAME_SLOTS = CODE_SLOTS * SUPERFRAMES
ACCEPT_SIGMA = 8.0
_FIRST_TAGS = 200
_LINE_TAGS = 24_000
_CODE_TAGS = 120_000
_CLEAR_SIGMA = 3.0
_LEAST_CONTRAST = 0.25
_HALF_GATE_PS = 200.0
_MOST_CANDIDATES = 64


@dataclass(frozen=True)
class FrameClock:
    """Where slots lie on Bob's clock: an early-bin click of `slot` at DZ (delay 0) is due at tag_ps + frac_ps.

    Reference and fraction are kept apart because a float64 of a tag time a day old resolves only 16 ps.
    """

    slot: int
    tag_ps: int
    frac_ps: float
    period_ps: float

    def slot_at(self, tag_ps: int) -> int:
        """The slot whose early bin is the last one due at or before a tag time."""
        return self.slot + floor((tag_ps - self.tag_ps - self.frac_ps) / self.period_ps)

    def tag_of(self, slot: int) -> int:
        """When the early bin of a slot is due, rounded to ps."""
        return self.moved_to(slot).tag_ps

    def moved_to(self, slot: int) -> FrameClock:
        """The same line with its reference at another slot."""
        ahead = self.frac_ps + (slot - self.slot) * self.period_ps
        whole = round(ahead)
        return FrameClock(slot, self.tag_ps + whole, ahead - whole, self.period_ps)


@dataclass(frozen=True)
class SyncResult:
    """`clock` knows its slot modulo 2^28. `y` is Bob's clock rate error against Alice's: his period is T (1 + y).

    `snr_code`, `snr_superframe`: correlation peaks in standard deviations; `used` the tags that went into them.
    """

    clock: FrameClock
    y: float
    snr_code: float
    snr_superframe: float
    used: int


@dataclass(frozen=True)
class SyncRefused:
    """Why no frame was found."""

    reason: str


@dataclass(frozen=True)
class FoldResult:
    """Detector path delays (DZ, DX0, DX1) relative to DZ, ps, and the clicks that told."""

    delays_ps: tuple[float, float, float]
    counts: tuple[int, int, int]


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The public string's 64-bit mixer; arithmetic modulo 2^64."""
    factor, half = np.uint64(0xD6E8FEB86659FD93), np.uint64(32)
    x = x ^ (x >> half)
    x = x * factor
    x = x ^ (x >> half)
    x = x * factor
    return x ^ (x >> half)


def _string(n: int, salt: int) -> Bits:
    return (_mix(np.arange(n, dtype=np.uint64) + np.uint64(salt)) & np.uint64(1)).astype(np.uint8)


_C1 = _string(CODE_SLOTS, 0x51C0FFEE)
_C2 = _string(SUPERFRAMES, 0xC0DE)
_SIGN1 = 1.0 - 2.0 * _C1
_SIGN2 = 1.0 - 2.0 * _C2
_EVEN_SPECTRUM = np.conj(np.fft.rfft(np.where(np.arange(CODE_SLOTS) % 2 == 0, _SIGN1, 0.0)))
_SUPER_SPECTRUM = np.conj(np.fft.rfft(_SIGN2))


def sync_bits(slots: Int64s) -> Bits:
    """The public string: the Z bit sent in each slot."""
    s = np.asarray(slots, np.int64)
    flip = _C2[(s >> 16) & (SUPERFRAMES - 1)] & (s & 1).astype(np.uint8)
    bits: Bits = _C1[s & (CODE_SLOTS - 1)] ^ flip
    return bits


def _tone(x: Floats, period: float) -> complex:
    """First harmonic of tag times at a period."""
    angle = (2 * pi / period) * x
    return complex(np.cos(angle).sum(), np.sin(angle).sum())


def _candidates(x: Floats, period: float, y_max: float) -> list[float] | str:
    """Rates y at which the first tags show the period, best first, or why there are none.

    A strobe whose period is a whole number of slots makes other rates look almost alike: all are returned.
    """
    first = x[:_FIRST_TAGS]
    span = max(float(first[-1]), period)
    step = 0.25 * period / span
    half = ceil(y_max / step)
    if half > 20_000:
        return f"{len(first)} tags spread over {span * 1e-12:.1f} s: too few clicks"
    y = step * np.arange(-half, half + 1)
    power = np.empty(len(y))
    for i in range(0, len(y), 256):
        angle = np.outer(2 * pi / (period * (1 + y[i : i + 256])), first)
        power[i : i + 256] = (np.cos(angle).sum(1) ** 2 + np.sin(angle).sum(1) ** 2) / len(first)
    threshold = 3 * log(len(y)) + 10
    if power.max() < threshold:
        return f"no tone at the slot period: {power.max():.1f} where {threshold:.1f} is needed"
    padded = np.concatenate([[-1.0], power, [-1.0]])
    peak = (power >= padded[:-2]) & (power > padded[2:]) & (power > max(threshold, 0.6 * power.max()))
    found = np.flatnonzero(peak)
    found = found[np.argsort(-power[found], kind="stable")][:_MOST_CANDIDATES]
    return [float(v) for v in y[found]]


def _refine_rate(x: Floats, period: float, y: float) -> float:
    """Line fits of the tone's phase over spans that grow by four, so that the phase never slips by a turn."""
    count = min(len(x), _FIRST_TAGS)
    while True:
        for _ in range(2):
            t = period * (1 + y)
            parts = max(4, min(32, count // 25))
            edges = np.linspace(0, count, parts + 1).astype(np.int64)
            thin = x[:count][:: max(1, count // _LINE_TAGS)]
            angle = (2 * pi / t) * thin
            where = np.unique(edges[:-1] * len(thin) // count)
            size = np.diff(np.append(where, len(thin)))
            tone = np.add.reduceat(np.cos(angle), where) + 1j * np.add.reduceat(np.sin(angle), where)
            phase = np.unwrap(np.angle(tone))
            middle = np.add.reduceat(thin, where) / size
            y += _slope(middle, phase) / (2 * pi) * t
        if count == len(x):
            return y
        count = min(len(x), 4 * count)


def _slope(x: Floats, y: Floats) -> float:
    dx = x - x.mean()
    return float((dx * (y - y.mean())).sum() / max((dx * dx).sum(), 1e-300))


def _thin(x: Floats, most: int) -> Floats:
    return x[:: max(1, -(-len(x) // most))]


def _sharpen(x: Floats, t: float, bin_ps: float) -> tuple[float, float]:
    """(time midway between the bins of slot number 0, period) from the two bins' edges."""
    x = _thin(x, _LINE_TAGS)
    middle = float(np.angle(_tone(x, t))) / (2 * pi) * t
    for _ in range(2):
        n = np.floor((x - middle) / t + 0.5)
        d = x - middle - n * t
        e = d - np.where(d > 0, bin_ps / 2, -bin_ps / 2)
        inside = np.abs(e) < _HALF_GATE_PS
        if np.count_nonzero(inside) < 20:
            break
        n, e = n[inside], e[inside]
        slope = _slope(n, e)
        middle += float(e.mean()) - slope * float(n.mean())
        t += slope
    return middle, t


def _peak(correlation: Floats, clicks: float, name: str) -> tuple[int, float, str | None]:
    """(position of the maximum, its height in standard deviations of chance, what speaks against it).

    A right peak holds most of the clicks and stands clear of its rivals. Both matter where few places of the string are
    seen again and again (short runs, a strobe): an unrelated steady pattern then has high peaks as well.
    """
    k = int(correlation.argmax())
    sigma = sqrt(max(1.0, clicks))
    height = float(correlation[k]) / sigma
    rival = float(np.partition(correlation, -2)[-2]) / sigma
    doubt = None
    if height < ACCEPT_SIGMA:
        doubt = f"{name}: peak of {height:.1f} sigma, {ACCEPT_SIGMA:.0f} are needed"
    elif height - rival < _CLEAR_SIGMA:
        doubt = f"{name}: peaks of {height:.1f} and {rival:.1f} sigma, ambiguous"
    elif float(correlation[k]) < _LEAST_CONTRAST * clicks:
        doubt = f"{name}: only {100 * float(correlation[k]) / clicks:.0f} % of the clicks agree"
    return k, height, doubt


def _slots_of(x: Floats, middle: float, t: float, bin_ps: float) -> tuple[Int64s, Floats]:
    """(slot numbers from an unknown origin, +1 early / -1 late) of the tags inside the gates."""
    n = np.floor((x - middle) / t + 0.5)
    d = x - middle - n * t
    inside = np.abs(np.abs(d) - bin_ps / 2) < _HALF_GATE_PS
    return n[inside].astype(np.int64), np.where(d[inside] > 0, -1.0, 1.0)


@dataclass(frozen=True)
class _Reading:
    """Slot number, modulo 2^28, of tag number 0; heights of both peaks; what speaks against them."""

    slot: int
    snr_code: float
    snr_superframe: float
    doubt: str | None


def _decode_slot(n: Int64s, sign: Floats) -> _Reading:
    fold = np.bincount(n & (CODE_SLOTS - 1), weights=sign, minlength=CODE_SLOTS)
    correlation = np.fft.irfft(np.fft.rfft(fold) * _EVEN_SPECTRUM, CODE_SLOTS)
    k, snr1, doubt1 = _peak(correlation, len(n) / 2, "public string")
    j = n - k
    odd = (j & 1) == 1
    j, sign = j[odd], sign[odd]
    flips = sign * _SIGN1[j & (CODE_SLOTS - 1)]
    per = np.bincount((j >> 16) & (SUPERFRAMES - 1), weights=flips, minlength=SUPERFRAMES)
    correlation = np.fft.irfft(np.fft.rfft(per) * _SUPER_SPECTRUM, SUPERFRAMES)
    q, snr2, doubt2 = _peak(correlation, float(len(j)), "superframe of the public string")
    return _Reading((-k - (q << 16)) % SUPERFRAME_SLOTS, snr1, snr2, doubt1 or doubt2)


def acquire(
    tags_dz: Int64s, period_ps: float = 8000.0, bin_ps: float = 800.0, y_max: float = 5e-6
) -> SyncResult | SyncRefused:
    """Find frames in the DZ tags (int64 ps, sorted) taken while Alice sends the public string.

    The clocks may differ by up to `y_max` (relative). Accepted if both correlation peaks exceed 8 standard deviations
    and are unambiguous.
    """
    if len(tags_dz) < 60:
        return SyncRefused(f"only {len(tags_dz)} clicks at DZ")
    origin = int(tags_dz[0])
    x = (np.asarray(tags_dz, np.int64) - origin).astype(np.float64)
    found = _candidates(x, period_ps, y_max)
    if isinstance(found, str):
        return SyncRefused(found)
    best: SyncResult | None = None
    doubt = ""
    for y in found:
        t = period_ps * (1 + _refine_rate(x, period_ps, y))
        middle, t = _sharpen(x, t, bin_ps)
        n, sign = _slots_of(_thin(x, _CODE_TAGS), middle, t, bin_ps)
        reading = _decode_slot(n, sign)
        clock = FrameClock(reading.slot, origin, middle - bin_ps / 2, t).moved_to(reading.slot)
        result = SyncResult(clock, t / period_ps - 1, reading.snr_code, reading.snr_superframe, len(n))
        if reading.doubt is not None:
            doubt = doubt or reading.doubt
        elif best is None or _worse_peak(result) > _worse_peak(best):
            best = result
    return best if best is not None else SyncRefused(doubt)


def _worse_peak(sync: SyncResult) -> float:
    return min(sync.snr_code, sync.snr_superframe)


def resolve_superframe(sync: SyncResult, slot_hint: int, tag_ps: int) -> FrameClock:
    """The clock with its full slot number: `slot_hint` is Alice's slot at `tag_ps`, good to +-2^27 slots (1 s)."""
    turns = round((slot_hint - sync.clock.slot_at(tag_ps)) / SUPERFRAME_SLOTS)
    return replace(sync.clock, slot=sync.clock.slot + turns * SUPERFRAME_SLOTS)


def _fold_one(offset: Floats, clock: FrameClock, bin_ps: float) -> float | None:
    """Delay at which one X detector's clicks show peaks 1:2:1, in [-T/2, T/2)."""
    t = clock.period_ps
    cells = 512
    width = t / cells
    histogram = np.bincount((offset / width).astype(np.int64) % cells, minlength=cells).astype(np.float64)
    lag = np.arange(cells) * width
    template = np.zeros(cells)
    for centre, weight in ((0.0, 1.0), (bin_ps, 2.0), (2 * bin_ps, 1.0)):
        away = np.abs((lag - centre + t / 2) % t - t / 2)
        template += weight * np.exp(-0.5 * (away / 60.0) ** 2)
    match = np.fft.irfft(np.fft.rfft(histogram - histogram.mean()) * np.conj(np.fft.rfft(template)), cells)
    noise = sqrt(float(histogram.mean()) * float((template**2).sum()))
    if match.max() < ACCEPT_SIGMA * max(noise, 1.0):
        return None
    delay = (float(match.argmax()) + 0.5) * width
    for _ in range(3):
        r = (offset - delay + bin_ps) % t - bin_ps
        b = np.clip(np.floor(r / bin_ps + 0.5), 0, 2)
        e = r - b * bin_ps
        delay += float(np.clip(e[np.abs(e) < 300.0], -150.0, 150.0).mean())
    return (delay + t / 2) % t - t / 2


def fold_delays(tags: Int64s, channels: Bits, clock: FrameClock, bin_ps: float = 800.0) -> FoldResult | SyncRefused:
    """Path delays of DX0 and DX1 against DZ, each on its own, from SYNC-mode tags (int64 ps) and the acquired clock.

    A Z state gives an X detector three peaks 1:2:1, one bin apart.
    """
    delays = [0.0]
    counts = [int(np.count_nonzero(channels == 0))]
    for d in (1, 2):
        x = (np.asarray(tags, np.int64)[channels == d] - clock.tag_ps).astype(np.float64) - clock.frac_ps
        delay = _fold_one(x % clock.period_ps, clock, bin_ps) if len(x) >= 20 else None
        if delay is None:
            return SyncRefused(f"no 1:2:1 peaks in {len(x)} clicks at DX{d - 1}")
        delays.append(delay)
        counts.append(len(x))
    return FoldResult((delays[0], delays[1], delays[2]), (counts[0], counts[1], counts[2]))
