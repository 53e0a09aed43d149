"""Control state -> mean photo-detections per (class, cell): one amplitude calculation (reference pair A4).

Class = 2*state + intensity: state 0 Z0 (early), 1 Z1 (late), 2 X0, 3 X1; intensity 0 signal, 1 decoy. A ninth row is a
slot with the state modulator undriven; the last two are pilots, whose early field leads or lags the late by 90 degrees.
Cells: DZ early, late; DX0 bins 0, 1, 2; DX1 bins 0, 1, 2 (bin 1 interferes).
`table` is the readable form in numpy; `fill_table` is the same, compiled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sim.jit import njit

Floats = npt.NDArray[np.float64]
ROWS = 11
UNDRIVEN, PILOT_PLUS, PILOT_MINUS = 8, 9, 10


def from_db(db: float) -> float:
    """Transmission of a loss in dB."""
    return float(10.0 ** (-db / 10.0))


def balanced(long: float) -> float:
    """Phase of the tunable coupler that makes up for a long arm of transmission `long`."""
    return 2.0 * math.asin(math.sqrt(1.0 / (1.0 + long)))


@dataclass(slots=True)
class AliceOptics:
    """mu_ref: photons of a Z signal symbol at the output with all errors 0. d_*: errors, theta_*: RF drives, rad.

    xi_s: signed field leak of the state modulator; leak_c, leak_d: extinctions as power ratios; long: transmission of
    the AMZI's long arm; windows: length of the state modulator's window in carved pulses; pilot_gain: mean photons of a
    pilot slot against those of a Z signal, 0 without pilot.
    """

    mu_ref: float = 0.50
    d_filter: float = 0.0
    d_split: float = 0.0
    phi: float = 0.0
    d_shutter: float = 0.0
    shutter_floor: float = 0.0
    d_c: float = 0.0
    theta_c: float = math.pi
    d_s: float = 0.0
    theta_s: float = math.pi
    d_d: float = 0.0
    theta_d: float = 2.0 * math.acos(math.sqrt(0.40))
    leak_c: float = 10.0**-2.7
    xi_s: float = 10.0**-1.1
    leak_d: float = 10.0**-2.5
    long: float = 10.0**-0.12
    windows: float = 4.0
    pilot_gain: float = 0.0

    def vector(self) -> Floats:
        return np.array([getattr(self, name) for name in ALICE_FIELDS])


@dataclass(slots=True)
class BobOptics:
    """kappa: share to the X arm; leak_b: extinction of the basis splitter; common, z, x, long: transmissions."""

    kappa: float = 0.10
    leak_b: float = 10.0**-3.5
    common: float = 10.0**-0.25
    z: float = 10.0**-0.03
    x: float = 10.0**-0.06
    long: float = 10.0**-0.12
    d_split: float = 0.0
    d_combine: float = 0.0
    phi: float = 0.0
    v_mode: float = 0.985
    eff_z: float = 0.82
    eff_x0: float = 0.80
    eff_x1: float = 0.81

    def vector(self) -> Floats:
        return np.array([getattr(self, name) for name in BOB_FIELDS])


ALICE_FIELDS = tuple(AliceOptics.__dataclass_fields__)
BOB_FIELDS = tuple(BobOptics.__dataclass_fields__)


def mzm(theta: float, xi: float) -> complex:
    """Field of a push-pull modulator, 0 = null; unequal arms leave the leak xi."""
    return 1j * math.sin(theta / 2.0) + xi * math.cos(theta / 2.0)


def decoy_transmission(theta: float, leak: float) -> float:
    """Power through the decoy modulator at drive and bias phase theta, 0 = peak."""
    return leak + (1.0 - leak) * math.cos(theta / 2.0) ** 2


def carver_off(d: float, leak: float) -> float:
    """Power through the undriven carver at bias error d."""
    return math.sin(d / 2.0) ** 2 + leak * math.cos(d / 2.0) ** 2


def drives(a: AliceOptics) -> list[tuple[float, float, float]]:
    """(early, late) drive of the state modulator and drive of the decoy modulator, for every row."""
    full, half = a.theta_s, a.theta_s / 2.0
    states = [(full, 0.0), (0.0, full), (half, half), (half, -half)]
    return [(e, late, k * a.theta_d) for e, late in states for k in (0.0, 1.0)] + [(0.0, 0.0, 0.0)]


def alice_fields(a: AliceOptics) -> tuple[npt.NDArray[np.complex128], Floats]:
    """Fields (E, L) in sqrt(photons) and leaked photons in each window, shape (11, 2), at the transmitter's output."""
    base = balanced(a.long)
    cross = math.sin((base + a.d_split) / 2.0) ** 2
    norm = 1.0 / math.sqrt(1.0 - math.sin(base / 2.0) ** 2)
    arms = norm * np.array([math.sqrt(1.0 - cross), math.sqrt(cross * a.long) * np.exp(1j * a.phi)])
    shutter = a.shutter_floor + (1.0 - a.shutter_floor) * math.cos(a.d_shutter / 2.0) ** 2
    common = a.mu_ref * (1.0 + math.cos(a.d_filter)) / 2.0 * shutter
    on = math.sin((a.theta_c + a.d_c) / 2.0) ** 2
    off = carver_off(a.d_c, a.leak_c)
    fields, leak = np.zeros((ROWS, 2), complex), np.zeros((ROWS, 2))
    for row, (early, late, decoy) in enumerate(drives(a)):
        g = common * decoy_transmission(decoy + a.d_d, a.leak_d)
        f = np.array([mzm(early + a.d_s, a.xi_s), mzm(late + a.d_s, a.xi_s)])
        fields[row] = math.sqrt(g * on) * f * arms
        leak[row] = g * off * a.windows * np.abs(f) ** 2
    g = common * decoy_transmission(a.d_d, a.leak_d) * a.pilot_gain
    for row, lead in ((PILOT_PLUS, 1j), (PILOT_MINUS, -1j)):
        f = np.array([lead, 1.0]) * math.sqrt(0.5)
        fields[row] = math.sqrt(g * on) * f * arms
        leak[row] = g * off * a.windows * np.abs(f) ** 2
    return fields, leak


def table(a: AliceOptics, b: BobOptics, loss_db: float) -> Floats:
    """Mean photo-detections a slot, efficiency included, darks not, shape (11, 8)."""
    fields, leak = alice_fields(a)
    light = np.abs(fields) ** 2 + leak
    t = from_db(loss_db) * b.common
    to_x = b.leak_b + (1.0 - 2.0 * b.leak_b) * b.kappa
    ki = math.sin((balanced(b.long) + b.d_split) / 2.0) ** 2
    ko = math.sin((math.pi / 2.0 + b.d_combine) / 2.0) ** 2
    ti, ri, to, ro = math.sqrt(1.0 - ki), math.sqrt(ki), math.sqrt(1.0 - ko), math.sqrt(ko)
    lam = np.zeros((ROWS, 8))
    lam[:, 0:2] = light * t * (1.0 - to_x) * b.z * b.eff_z
    short = ti * fields[:, 1]
    delayed = 1j * ri * math.sqrt(b.long) * np.exp(1j * b.phi) * fields[:, 0]
    cross0 = 2.0 * b.v_mode * np.real(np.conj(to * short) * (1j * ro * delayed))
    cross1 = 2.0 * b.v_mode * np.real(np.conj(1j * ro * short) * (to * delayed))
    ls, ll = ti**2, ri**2 * b.long
    early, late = light[:, 0], light[:, 1]
    x = t * to_x * b.x
    m0 = to**2 * ls * late + ro**2 * ll * early + cross0
    m1 = ro**2 * ls * late + to**2 * ll * early + cross1
    lam[:, 2:5] = x * b.eff_x0 * np.stack([to**2 * ls * early, m0, ro**2 * ll * late], 1)
    lam[:, 5:8] = x * b.eff_x1 * np.stack([ro**2 * ls * early, m1, to**2 * ll * late], 1)
    return np.maximum(lam, 0.0)


@njit(nogil=True, cache=True)
def fill_table(a: Floats, b: Floats, loss_db: float, lam: Floats, photons: Floats) -> None:
    """`table` from the vectors of AliceOptics and BobOptics into lam (11, 8); photons (11,): a slot, Alice's output.

    Arrays with fewer rows get the first ones.
    """
    long_a = a[15]
    base = 2.0 * math.asin(math.sqrt(1.0 / (1.0 + long_a)))
    cross = math.sin((base + a[2]) / 2.0) ** 2
    norm2 = 1.0 / (1.0 - math.sin(base / 2.0) ** 2)
    h_early, h_late = math.sqrt(norm2 * (1.0 - cross)), math.sqrt(norm2 * cross * long_a)
    shutter = a[5] + (1.0 - a[5]) * math.cos(a[4] / 2.0) ** 2
    common = a[0] * (1.0 + math.cos(a[1])) / 2.0 * shutter
    on = math.sin((a[7] + a[6]) / 2.0) ** 2
    off = math.sin(a[6] / 2.0) ** 2 + a[12] * math.cos(a[6] / 2.0) ** 2
    xi = a[13]
    t = 10.0 ** (-loss_db / 10.0) * b[2]
    to_x = b[1] + (1.0 - 2.0 * b[1]) * b[0]
    long_b = b[5]
    ki = math.sin((2.0 * math.asin(math.sqrt(1.0 / (1.0 + long_b))) + b[6]) / 2.0) ** 2
    ko = math.sin((math.pi / 2.0 + b[7]) / 2.0) ** 2
    ls, ll, to2, ro2 = 1.0 - ki, ki * long_b, 1.0 - ko, ko
    z = t * (1.0 - to_x) * b[3] * b[10]
    x = t * to_x * b[4]
    mix = 2.0 * b[9] * math.sqrt(ls * ll * to2 * ro2)
    turn = math.cos(b[8] - a[3])
    turn_q = math.sin(b[8] - a[3])
    for row in range(lam.shape[0]):
        state, k = row // 2, row % 2
        e = a[9] if state == 0 else (0.5 * a[9] if 2 <= state <= 3 else 0.0)
        s = a[9] if state == 1 else (0.5 * a[9] if state == 2 else (-0.5 * a[9] if state == 3 else 0.0))
        d = (a[11] if k == 1 else 0.0) + a[10]
        g = common * (a[14] + (1.0 - a[14]) * math.cos(d / 2.0) ** 2)
        e_im, e_re = math.sin((e + a[8]) / 2.0), xi * math.cos((e + a[8]) / 2.0)
        l_im, l_re = math.sin((s + a[8]) / 2.0), xi * math.cos((s + a[8]) / 2.0)
        e2, l2 = e_im * e_im + e_re * e_re, l_im * l_im + l_re * l_re
        if row >= 9:
            g = common * (a[14] + (1.0 - a[14]) * math.cos(a[10] / 2.0) ** 2) * a[17]
            e2 = l2 = 0.5
        early = g * (on * e2 * h_early * h_early + off * a[16] * e2)
        late = g * (on * l2 * h_late * h_late + off * a[16] * l2)
        # conj(late) * early, turned by phi_B - phi_A: its real part interferes
        re = l_re * e_re + l_im * e_im
        im = l_re * e_im - l_im * e_re
        if row >= 9:
            re, im = 0.0, (0.5 if row == 9 else -0.5)
        wave = mix * g * on * h_early * h_late * (re * turn - im * turn_q)
        photons[row] = early + late
        lam[row, 0] = z * early
        lam[row, 1] = z * late
        lam[row, 2] = x * b[11] * to2 * ls * early
        lam[row, 3] = max(0.0, x * b[11] * (to2 * ls * late + ro2 * ll * early - wave))
        lam[row, 4] = x * b[11] * ro2 * ll * late
        lam[row, 5] = x * b[12] * ro2 * ls * early
        lam[row, 6] = max(0.0, x * b[12] * (ro2 * ls * late + to2 * ll * early + wave))
        lam[row, 7] = x * b[12] * to2 * ll * late


def continuous_split(b: BobOptics, turn: float) -> Floats:
    """Share of unmodulated light that each detector registers, (3,). turn: phase of the receiver's AMZI for it."""
    to_x = b.leak_b + (1.0 - 2.0 * b.leak_b) * b.kappa
    ki = math.sin((balanced(b.long) + b.d_split) / 2.0) ** 2
    ko = math.sin((math.pi / 2.0 + b.d_combine) / 2.0) ** 2
    ls, ll = 1.0 - ki, ki * b.long
    wave = 2.0 * b.v_mode * math.sqrt(ls * ll * ko * (1.0 - ko)) * math.cos(turn)
    port0 = (1.0 - ko) * ls + ko * ll - wave
    port1 = ko * ls + (1.0 - ko) * ll + wave
    x = b.common * to_x * b.x
    return np.array([b.common * (1.0 - to_x) * b.z * b.eff_z, x * b.eff_x0 * port0, x * b.eff_x1 * port1])


def photons_of(alice: AliceOptics) -> Floats:
    """Mean photons a slot at the transmitter's output for every row, shape (11,); read-only."""
    return _photons_of(alice.vector().tobytes())


@lru_cache(maxsize=4)
def _photons_of(vector: bytes) -> Floats:
    """Of one state of the optics: all samples of a reading ask for the same."""
    lam, photons = np.empty((ROWS, 8)), np.empty(ROWS)
    fill_table(np.frombuffer(vector).copy(), BobOptics().vector(), 0.0, lam, photons)
    photons.setflags(write=False)
    return photons
