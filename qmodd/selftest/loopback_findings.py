"""What the receiver's loopback readings say: instruments, losses, detectors, dead time, fringe. No I/O here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from calibration.fit import PI, Array, FitRefused, fit_fringe
from calibration.plot import Plot, Series
from qmodd.selftest.bench import Bench
from qmodd.selftest.diode import PART, SHUTTER_PART
from qmodd.selftest.interferometer_bob import SEARCH_W, Points
from qmodd.selftest.light_off_bob import CABLES, LATCHED_V
from qmodd.selftest.model import Finding, Limits, skipped
from qmodd.selftest.receiver import DETECTOR_NAMES, RECEIVER_HEATERS
from qmodd.selftest.receiver_budget import Budget, budget

PHOTON_J = 6.62607015e-34 * 193.4145e12
TAPS = ("pb1", "pb2", "pb3")
# Closed shutter of the diode, dB; with the detectors' efficiencies (0.75 to 0.88, pair A7) and what is behind the taps.
ISOLATION_DB, USUAL_DB = 60.0, 1.1
ISOLATION = Limits(54.5, 65.5, 56.0, 64.0)
# Photons/s at the entry for about 0.2 MHz in each detector, and brighter by this for the dead time.
PHOTONS_HZ, BRIGHTER = 1.0e6, 12.0
READ_S, SHORT_S = 0.25, 0.08
# Dead time and recovery together 15 to 25 ns (pair A7), s; the diode's straight line near its threshold, relative.
LAW_SHARE = 0.01
DEAD_S = Limits(2e-9, 45e-9)
# Shares of the switching current: well below the plateau's edge, and on the plateau; of the rate at the working bias.
LOW_SHARE, HIGH_SHARE = 0.62, 0.84
EDGE, FLAT = Limits(high=0.3), Limits(0.93, 1.05)
SAME = Limits(0.93, 1.07)
VISIBILITY, ANTIPHASE_RAD = Limits(low=0.85, warn_low=0.9), Limits(PI - 0.35, PI + 0.35)
FOLLOWS = Limits(low=0.6)


@dataclass
class Seen:
    """Counts/s of (DZ, DX0, DX1) less what is there without the diode, and light at their taps, W; with half of the
    light in each arm, all of the X arm's by the short way, half of that at each output, unless said otherwise."""

    tap_w: Array
    background: Array = field(default_factory=lambda: np.zeros(3))
    volts: Sequence[float] = ()
    tagged: Array = field(default_factory=lambda: np.zeros(3))
    controller: Array = field(default_factory=lambda: np.zeros(3))
    counter: Array = field(default_factory=lambda: np.full(3, np.nan))
    low: Array = field(default_factory=lambda: np.zeros(3))
    high: Array = field(default_factory=lambda: np.zeros(3))
    bright: Array = field(default_factory=lambda: np.zeros(3))
    to_dx0: Array = field(default_factory=lambda: np.zeros(3))
    to_dz: Array = field(default_factory=lambda: np.zeros(3))
    to_x: Array = field(default_factory=lambda: np.zeros(3))
    fringe: tuple[Array, Array] = (np.zeros(0), np.zeros(0))
    after: Array = field(default_factory=lambda: np.zeros(3))


def drive_for(law: tuple[float, float], photons_hz: float) -> float:
    """V for photons/s at the entry with the diode's shutter closed; law: (threshold V, W/V with it open)."""
    return law[0] + photons_hz * PHOTON_J * math.pow(10.0, ISOLATION_DB / 10.0) / law[1]


def judge(bench: Bench, points: Points, law: tuple[float, float], seen: Seen) -> list[Finding]:
    """Everything that the readings tell."""
    return [
        *_alive(bench, seen),
        *_three_opinions(bench, seen),
        *_losses(bench, points, law, seen),
        *_curves(bench, seen),
        *_dead_time(bench, law, seen),
        *_follows(bench, seen),
        *_interference(bench, seen),
    ]


_HEATER_PARTS = tuple(f"heater {h}" for h in RECEIVER_HEATERS)


def _needs(bench: Bench, *more: str) -> tuple[str, ...]:
    parts = (bench.part("heaters"), bench.part("biases"), bench.part("adc"))
    return (PART, SHUTTER_PART, "shutter", "photodiode pb0", CABLES, *parts, *_HEATER_PARTS, *more)


def _counts(seen: Seen) -> Array:
    """Counts/s of each detector: the median of three instruments; of two, the one that is nearer to what the light at
    its tap predicts by the other detectors."""
    opinions = np.stack([seen.tagged, seen.controller, seen.counter])
    middle = np.nanmedian(opinions, axis=0)
    sure = np.isfinite(opinions).sum(axis=0) > 2
    base = middle[sure] / seen.tap_w[sure] if sure.any() else np.maximum(seen.tagged, seen.controller) / seen.tap_w
    for d in np.flatnonzero(~sure):
        predicted = float(np.median(base)) * float(seen.tap_w[d])
        two = opinions[:2, d]
        middle[d] = two[np.abs(np.log(np.maximum(two, 1.0) / max(predicted, 1.0))).argmin()]
    return np.asarray(middle)


def _alive(bench: Bench, seen: Seen) -> list[Finding]:
    """No detector latches in weak light, each sees it, and none after it."""
    found = []
    for d, n in enumerate(DETECTOR_NAMES):
        part, needs = f"detector {n}", (*_needs(bench), bench.part("detectors"), bench.part("tags"))
        rate = float(max(seen.tagged[d], seen.controller[d]))
        hint = "Weak light of the diode drives it normal."
        found += [
            Finding(f"latched_in_light.{n}", float(seen.volts[d]), "V", Limits(high=LATCHED_V), part, needs, hint),
            Finding(f"sees_light.{n}", rate, "1/s", Limits(low=1e3), part, needs, "No counts in the diode's light."),
            Finding(
                f"dark_again.{n}",
                float(seen.after[d]),
                "1/s",
                Limits(high=3e3),
                PART,
                (part, bench.part("biases")),
                "Counts remain after the diode went off.",
            ),
        ]
    return found


def _three_opinions(bench: Bench, seen: Seen) -> list[Finding]:
    """Each instrument against what the detector is taken to count."""
    witnesses = (("tagger", seen.tagged, "tags"), ("controller", seen.controller, "detectors"))
    counts, found = _counts(seen), []
    for name, rates, role in (*witnesses, ("counter", seen.counter, "counter")):
        for d, n in enumerate(DETECTOR_NAMES):
            if not bench.has(role) or not np.isfinite(rates[d]):
                continue
            part = bench.part(role)
            if counts[d] < 1e3:
                found.append(skipped(f"rate_{name}.{n}", part, "the detector counts nothing", (f"detector {n}",)))
                continue
            hint = f"Of {counts[d]:.4g} counts/s that the others see."
            needs = (
                f"detector {n}",
                bench.bus(role),
                *_HEATER_PARTS,
                *((bench.part("tags"),) if role != "tags" else ()),
            )
            ratio = float(rates[d] / counts[d])
            noise = 5.0 * math.sqrt(2.0 / (float(counts[d]) * READ_S / 3.0))
            limits = Limits(SAME.low - noise, SAME.high + noise)
            found.append(Finding(f"rate_{name}.{n}", ratio, "", limits, part, needs, hint))
    return found


def _losses(bench: Bench, points: Points, law: tuple[float, float], seen: Seen) -> list[Finding]:
    rates = _counts(seen)
    db = 10.0 * np.log10(np.maximum(rates * PHOTON_J, 1e-22) / np.maximum(seen.tap_w, 1e-15))
    # Of the X arm's light at each output in the scale of its own photodiode.
    pd = np.array([points.z_w, points.x_w, points.x_w * points.pb3_over_pb2])
    b = budget(10.0 * np.log10(np.maximum(pd / points.entry_w, 1e-6)), db)
    # Bright full drive against this drive, shutter open against closed, light against clicks.
    scale = (5.0 - law[0]) / (drive_for(law, PHOTONS_HZ) - law[0])
    isolation = -float(np.median(db)) - 10.0 * math.log10(scale) - USUAL_DB
    hint = "Light that reaches the detectors, with the diode's shutter closed, for what the photodiodes saw."
    needs = (PART, "photodiode pb0", bench.part("tags"), bench.part("detectors"))
    return [
        *_budget_findings(bench, b),
        Finding("diode_shutter.isolation", isolation, "dB", ISOLATION, SHUTTER_PART, needs, hint),
    ]


def _budget_findings(bench: Bench, b: Budget) -> list[Finding]:
    found = []
    for part, (excess, low, high) in b.parts().items():
        name = part.removeprefix("path ").replace(" ", "_")
        kind = "loss" if part.startswith("path") else "response"
        # The diode's slope is judged by pb0, so that pb0 is no consequence of the diode.
        needs = tuple(n for n in _needs(bench) if n != part and not (part == "photodiode pb0" and n == PART))
        hint = "More loss than usual." if kind == "loss" else "Reads less than the others make of the same light."
        found.append(Finding(f"{kind}.{name}", excess, "dB", Limits(low, high), part, needs, hint))
    return found


def _curves(bench: Bench, seen: Seen) -> list[Finding]:
    """Plateau: rates low and high on the bias curve against the working bias."""
    found = []
    for d, n in enumerate(DETECTOR_NAMES):
        if not (seen.tagged[d] > 1e3 and seen.high.any()):
            continue
        part, needs = f"detector {n}", (*_needs(bench), bench.part("detectors"), bench.part("tags"))
        low, high = float(seen.low[d] / seen.tagged[d]), float(seen.high[d] / seen.tagged[d])
        noise = 5.0 * math.sqrt(2.0 / (float(seen.tagged[d]) * SHORT_S))
        flat = Limits(FLAT.low - noise, FLAT.high + noise)
        hint = "No plateau: counts where a good wire is insensitive."
        found += [
            Finding(f"edge.{n}", low, "", EDGE, part, needs, hint),
            Finding(f"plateau.{n}", high, "", flat, part, needs, "No plateau: counts still rise with bias."),
        ]
    return found


def _dead_time(bench: Bench, law: tuple[float, float], seen: Seen) -> list[Finding]:
    """Two levels of light, their ratio by the diode's law: what is missing at the brighter one."""
    found = []
    k = (drive_for(law, BRIGHTER * PHOTONS_HZ) - law[0]) / (drive_for(law, PHOTONS_HZ) - law[0])
    for d, n in enumerate(DETECTOR_NAMES):
        m1, m2 = float(seen.tagged[d]), float(seen.bright[d])
        if m1 < 1e3 or m2 < 1e3:
            continue
        tau = (k * m1 - m2) / (m1 * m2 * (k - 1.0))
        share = math.hypot(math.sqrt(1.0 / (m1 * READ_S)), math.sqrt(1.0 / (m2 * READ_S)), LAW_SHARE)
        sigma = share * k / (m2 * (k - 1.0))
        limits = Limits(DEAD_S.low - 5.0 * sigma, DEAD_S.high + 5.0 * sigma)
        needs = (*_needs(bench), bench.part("detectors"), bench.part("tags"))
        hint = "Counts do not follow the light as its dead time would have it."
        found.append(Finding(f"dead_time.{n}", tau, "s", limits, f"detector {n}", needs, hint, sigma=sigma))
    return found


def _follows(bench: Bench, seen: Seen) -> list[Finding]:
    """Light that the photodiodes' fringes send to one output comes there."""
    a, b = float(seen.to_dx0[1]), float(seen.to_dx0[2])
    z, x = float(seen.to_dz[0]), float(seen.to_x[0])
    needs = (*_needs(bench), "detector DX0", "detector DX1", bench.part("detectors"), bench.part("tags"))
    part = "cables of photodiode pb2 and photodiode pb3"
    hint = "What pb2 and pb3 call DX0's light comes to DX1."
    return [
        Finding("follows.DX", (a - b) / max(a + b, 1.0), "", FOLLOWS, part, needs, hint),
        Finding(
            "follows.DZ",
            (z - x) / max(z + x, 1.0),
            "",
            FOLLOWS,
            "heater basis",
            (*_needs(bench), "detector DZ", bench.part("detectors"), bench.part("tags")),
            "DZ does not follow the basis splitter.",
        ),
    ]


def _interference(bench: Bench, seen: Seen) -> list[Finding]:
    """The interferometer's fringe at DX0 and DX1: in antiphase, and as deep as at the photodiodes."""
    powers, rates = seen.fringe
    lines = [Series(n, (1e3 * powers).tolist(), rates[d].tolist()) for d, n in enumerate(DETECTOR_NAMES)]
    bench.figures["Detectors' fringe"] = Plot("Detectors' fringe", "power of heater phase (mW)", "counts/s", lines)
    phases: list[float] = []
    found: list[Finding] = []
    for d in (1, 2):
        n = DETECTOR_NAMES[d]
        needs = (*_needs(bench, "heater phase", f"detector {n}"), bench.part("detectors"), bench.part("tags"))
        try:
            fringe = fit_fringe(powers, rates[d], *SEARCH_W, visibility_min=0.2, residual_max=0.3)
        except FitRefused as e:
            found.append(Finding(f"visibility.{n}", math.nan, "", VISIBILITY, "path amzi", needs, f"No fringe: {e}."))
            continue
        phases.append(fringe.phase(0.5 * float(powers.max())))
        hint = "Interference of single photons."
        found.append(Finding(f"visibility.{n}", fringe.visibility, "", VISIBILITY, "path amzi", needs, hint))
    if len(phases) == 2:
        apart = math.fmod(phases[1] - phases[0] + 4.0 * PI, 2.0 * PI)
        hint = "Both outputs of the combiner should be in antiphase."
        found.append(Finding("antiphase.DX", apart, "rad", ANTIPHASE_RAD, "path amzi", _needs(bench), hint))
    return found
