"""Every emulated module is an individual drawn from the seed (reference pair A7); what its factory wrote about it.

The factory's record holds measured values with their uncertainty, never the truth; nothing else of an individual leaves
the emulator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PLANCK = 6.62607015e-34
CHANNEL_HZ = 193.4145e12
CARVED_PULSE_PS = 100.0
ALICE_DIODES = {0: "pa0", 1: "pa1", 3: "pa3", 4: "pa4", 5: "pa5", 6: "pa6", 7: "pa7"}
BOB_DIODES = {0: "pb0", 1: "pb1", 3: "pb2", 4: "pb3"}
PAD_NOMINAL_DB = 25.0
# ADC channel of the photodiode at the pad's other port, and what share of the light before the pad it gets.
PAD_PORT, PAD_PORT_SHARE = 7, 0.9
HEATERS = 4


def stream(seed: int, name: str) -> np.random.Generator:
    """An independent, named source of randomness (Philox, keyed by seed and name)."""
    return np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFFFFFFFFFF, crc32(name.encode())]))


@dataclass(frozen=True)
class Heaters:
    """Four heaters: cold resistance ohm, rho 1/W, power for pi W, lag s, phase unpowered rad, thermo-optic coupling.

    theta: shape (4, 4), share of heater j's phase that element i sees. die_rad_per_k: phase per kelvin of die, (4,).
    """

    r0: Floats
    rho: Floats
    p_pi: Floats
    tau: Floats
    phi0: Floats
    theta: Floats
    die_rad_per_k: Floats


@dataclass(frozen=True)
class Ballast:
    """A heater beside the circuit: it warms the die and turns no phase. As `Heaters`: ohm, 1/W, s."""

    r0: float
    rho: float
    tau: float


@dataclass(frozen=True)
class Modulator:
    """Push-pull MZM. v_pi, v_rf: volts for pi at bias and RF port; offset: bias of its set point, V; xi: field leak."""

    v_pi: float
    v_rf: float
    offset: float
    xi: float


@dataclass(frozen=True)
class Monitors:
    """Photodiodes and logarithmic amplifiers, per ADC channel, shape (8,): A/W, tap ratio, dark A, V/decade, A."""

    responsivity: Floats
    tap: Floats
    dark: Floats
    tia_vy_v: Floats
    tia_iz_a: Floats


@dataclass(frozen=True)
class Diode:
    """Bob's self-test laser. Emits slope_w_per_v above threshold_v of its drive; coupler_db: into the module's input.

    isolation_db: of its closed shutter; offset_hz: its frequency less the channel's; swing_hz, swing_s, swing_rad:
    size, period and phase of the slow swings of its frequency.
    """

    threshold_v: float
    slope_w_per_v: float
    coupler_db: float
    isolation_db: float
    offset_hz: float
    swing_hz: Floats
    swing_s: Floats
    swing_rad: Floats


@dataclass(frozen=True)
class AliceIndividual:
    serial: str
    heaters: Heaters
    monitors: Monitors
    carver: Modulator
    state: Modulator
    decoy: Modulator
    long_db: float
    coupler_db: float
    before_amzi_db: float
    state_db: float
    decoy_db: float
    output_db: float
    pad_db: float
    shutter_floor: float
    fringe: float
    voa_serial: str
    voa: tuple[float, float, float]
    laser_offset_hz: float
    laser_offset_db: float


@dataclass(frozen=True)
class BobIndividual:
    serial: str
    heaters: Heaters
    monitors: Monitors
    common_db: float
    z_db: float
    x_db: float
    long_db: float
    basis_db: float
    v_mode: float
    tau_mismatch_s: float
    pdl_db: float
    efficiency: Floats
    darks: Floats
    jitter_fwhm_ps: Floats
    dead_ps: Floats
    recovery_ps: Floats
    delay_ps: Floats
    switch_a: Floats
    clock_offset: float
    diode: Diode


def draw_alice(seed: int) -> AliceIndividual:
    g = stream(seed, "alice individual")
    return AliceIndividual(
        serial=f"QA{_serial(g)}",
        heaters=_heaters(g, (0.0011, 0.0, 0.70, 0.0)),
        monitors=_with_pad_port(_monitors(g, {0: 0.003, 1: 0.02, 3: 0.05, 4: 1.0, 5: 0.01, 6: 0.0025}), seed),
        carver=_modulator(g, 27.0, 1.5, 23.0),
        state=_modulator(g, 22.0, 1.2, 19.5),
        decoy=_modulator(g, 25.0, 1.5, 20.0),
        long_db=g.uniform(0.9, 1.6),
        coupler_db=_normal(g, 1.5, 0.1),
        before_amzi_db=_normal(g, 7.3, 0.3),
        state_db=_normal(g, 3.2, 0.2),
        decoy_db=_normal(g, 3.0, 0.2),
        output_db=_normal(g, 1.5, 0.1),
        pad_db=_normal(g, PAD_NOMINAL_DB, 0.1),
        shutter_floor=10.0 ** (-_normal(g, 33.0, 1.0) / 10.0),
        fringe=g.uniform(0.98, 0.995),
        voa_serial=f"VO{_serial(g)}",
        voa=(0.8 * (1 + g.uniform(-0.05, 0.05)), 1.0 + g.uniform(-0.05, 0.05), 1.35 * (1 + g.uniform(-0.05, 0.05))),
        laser_offset_hz=_normal(g, 0.0, 0.5e9),
        laser_offset_db=g.uniform(-0.1, 0.1),
    )


def draw_bob(seed: int) -> BobIndividual:
    g = stream(seed, "bob individual")
    return BobIndividual(
        serial=f"QB{_serial(g)}",
        heaters=_heaters(g, (0.0, 0.0, 0.70, 0.0)),
        monitors=_monitors(g, {0: 0.01, 1: 0.01, 3: 0.01, 4: 0.01}),
        common_db=g.uniform(2.0, 3.2),
        z_db=g.uniform(0.2, 0.5),
        x_db=g.uniform(0.4, 0.9),
        long_db=g.uniform(0.9, 1.6),
        basis_db=_normal(g, 35.0, 1.0),
        v_mode=g.uniform(0.975, 0.995),
        tau_mismatch_s=g.uniform(-5e-12, 5e-12),
        pdl_db=g.uniform(0.1, 0.4),
        efficiency=g.uniform(0.75, 0.88, 3),
        darks=100.0 * np.exp(0.5 * np.clip(g.normal(size=3), -3, 3)),
        jitter_fwhm_ps=g.uniform(30.0, 60.0, 3),
        dead_ps=g.uniform(12e3, 20e3, 3),
        recovery_ps=g.uniform(3e3, 5e3, 3),
        delay_ps=g.uniform(0.0, 3e3, 3),
        switch_a=g.uniform(18e-6, 24e-6, 3),
        clock_offset=g.uniform(-2e-6, 2e-6),
        diode=draw_diode(seed),
    )


def draw_diode(seed: int) -> Diode:
    """From a stream of its own: receivers are the same individuals as before they had one."""
    g = stream(seed, "self-test diode")
    return Diode(
        threshold_v=_normal(g, 1.0, 0.05),
        slope_w_per_v=_normal(g, 0.25e-3, 0.02e-3),
        coupler_db=_normal(g, 20.0, 0.3),
        isolation_db=_normal(g, 60.0, 1.0),
        offset_hz=g.uniform(-20e9, 20e9),
        swing_hz=g.uniform(5e6, 15e6, 3),
        swing_s=np.array([500.0, 1700.0, 6000.0]) * g.uniform(0.8, 1.2, 3),
        swing_rad=g.uniform(0.0, 2.0 * math.pi, 3),
    )


def draw_ballast(seed: int, side: str) -> Ballast:
    """From a stream of its own: a module is the same individual with and without it."""
    g = stream(seed, f"{side} ballast")
    return Ballast(float(90.0 * g.uniform(0.94, 1.06)), 0.9, float(g.uniform(15e-6, 60e-6)))


def draw_patterning(seed: int, largest: float) -> Floats:
    """How much intensity k differs after intensity j, relative, shape (2, 2) (reference pair A7).

    From a stream of its own. Uniform in +-largest; all 0 without.
    """
    return np.asarray(stream(seed, "patterning").uniform(-largest, largest, (2, 2)))


def _serial(g: np.random.Generator) -> str:
    return f"{g.integers(0, 10**7):07d}"


def _normal(g: np.random.Generator, mean: float, sigma: float) -> float:
    """Normal, cut at 3 sigma: a part further out would not have left its factory."""
    return float(mean + sigma * np.clip(g.normal(), -3.0, 3.0))


def _heaters(g: np.random.Generator, die_deg_per_mk: tuple[float, float, float, float]) -> Heaters:
    distance = np.abs(np.subtract.outer(np.arange(HEATERS), np.arange(HEATERS)))
    spread = np.exp(0.2 * np.clip(g.normal(size=(HEATERS, HEATERS)), -3, 3))
    theta = np.where(distance == 0, 1.0, 0.04 * np.exp(-distance / 1.5) * spread)
    die = np.array([s if s else g.uniform(-0.02, 0.02) for s in die_deg_per_mk])
    return Heaters(
        r0=90.0 * g.uniform(0.94, 1.06, HEATERS),
        rho=np.full(HEATERS, 0.9),
        p_pi=np.array([_normal(g, 0.040, 0.0032) for _ in range(HEATERS)]),
        tau=g.uniform(15e-6, 60e-6, HEATERS),
        phi0=g.uniform(0.0, 2.0 * math.pi, HEATERS),
        theta=theta,
        die_rad_per_k=np.deg2rad(die * 1e3),
    )


def _modulator(g: np.random.Generator, er_db: float, sigma_db: float, worst_db: float) -> Modulator:
    er = max(worst_db, _normal(g, er_db, sigma_db))
    v_pi = _normal(g, 4.0, 0.2)
    sign = 1.0 if g.random() < 0.5 else -1.0
    return Modulator(v_pi, 4.0 * _normal(g, 1.0, 0.05), g.uniform(-v_pi, v_pi), sign * 10.0 ** (-er / 20.0))


def _monitors(g: np.random.Generator, taps: dict[int, float]) -> Monitors:
    tap = np.zeros(8)
    for channel, nominal in taps.items():
        tap[channel] = nominal * g.uniform(0.95, 1.05) if nominal < 1.0 else 1.0
    wired = tap > 0.0
    return Monitors(
        responsivity=np.where(wired, 0.95 * g.uniform(0.95, 1.05, 8), 0.0),
        tap=tap,
        dark=np.where(wired, g.uniform(1.5e-10, 4e-10, 8), 0.0),
        tia_vy_v=0.2 * g.uniform(0.98, 1.02, 8),
        tia_iz_a=1e-10 * g.uniform(0.85, 1.15, 8),
    )


def _with_pad_port(m: Monitors, seed: int) -> Monitors:
    """The fixed pad is a coupler: nearly all that enters it leaves by its other port, where PA7 sits.

    From a stream of its own: what else a seed makes of a module does not depend on it.
    """
    g = stream(seed, "alice pad port")
    responsivity, tap, dark = m.responsivity.copy(), m.tap.copy(), m.dark.copy()
    responsivity[PAD_PORT] = 0.95 * g.uniform(0.95, 1.05)
    tap[PAD_PORT] = PAD_PORT_SHARE * g.uniform(0.95, 1.05)
    dark[PAD_PORT] = g.uniform(1.5e-10, 4e-10)
    return replace(m, responsivity=responsivity, tap=tap, dark=dark)


def photons_per_pa3_ampere(alice: AliceIndividual) -> float:
    """True constant of mu = constant * I * T * 10^(-A/10), photons/(A s): shutter open, pad included, VOA not."""
    m = alice.monitors
    watts = (1.0 - m.tap[3]) / (m.tap[3] * m.responsivity[3])
    loss = 10.0 ** (-(alice.output_db + alice.pad_db) / 10.0) * (1.0 - m.tap[5])
    return float(watts * loss / (PLANCK * CHANNEL_HZ))


def voa_db(table: tuple[float, float, float], volts: float) -> float:
    """Attenuation of an individual MEMS attenuator, dB (reference pair A2)."""
    v = min(max(volts, 0.0), 5.0)
    return table[0] + table[1] * v + table[2] * v * v


def factory_record(individual: AliceIndividual | BobIndividual, seed: int = 0) -> dict[str, Any]:
    """What the factory measured on this module, JSON-ready: values around the truth with their stated uncertainty.

    `seed` is the scenario's; the same module always carries the same record.
    """
    g = stream(seed, f"factory {individual.serial}")
    diodes = ALICE_DIODES if isinstance(individual, AliceIndividual) else BOB_DIODES
    late = stream(seed, f"factory {individual.serial} pad port")

    def streams(channel: int) -> np.random.Generator:
        return late if channel == PAD_PORT else g

    record: dict[str, Any] = {
        "schema": 1,
        "serial": individual.serial,
        "photodiodes": {name: _diode(streams(c), individual.monitors, c) for c, name in diodes.items()},
        "heaters": {"max_current_a": 0.033, "max_power_w": 0.110, "rail_v": 4.0, "shunt_ohm": 0.05},
    }
    if isinstance(individual, AliceIndividual):
        record |= _transmitter_record(g, individual)
    return record


def _diode(g: np.random.Generator, m: Monitors, channel: int) -> dict[str, float]:
    return {
        "channel": channel,
        "responsivity_a_per_w": _around(g, m.responsivity[channel], 0.01),
        "responsivity_relative_sigma": 0.01,
        "tap_ratio": _around(g, m.tap[channel], 0.01) if m.tap[channel] < 1.0 else 1.0,
        "tap_relative_sigma": 0.01 if m.tap[channel] < 1.0 else 0.0,
        "log_slope_v_per_decade": _around(g, m.tia_vy_v[channel], 0.0005),
        "log_intercept_a": _around(g, m.tia_iz_a[channel], 0.003),
    }


def _transmitter_record(g: np.random.Generator, alice: AliceIndividual) -> dict[str, Any]:
    volts = [round(0.1 * i, 1) for i in range(51)]
    offset = _normal(g, 0.0, 0.02)
    measured = [round(voa_db(alice.voa, v) + offset + _normal(g, 0.0, 0.003), 4) for v in volts]
    return {
        "mean_photon": {
            "constant": _around(g, photons_per_pa3_ampere(alice), 0.005),
            "relative_sigma": 0.005,
            "note": "mu = constant * I_pa3 * T_symbol * 10^(-A_voa/10); tap, responsivity, coupler and pad are inside",
        },
        "voa": {"serial": alice.voa_serial, "volts": volts, "db": measured, "sigma_db": 0.02},
        "pad": {"db": round(_normal(g, alice.pad_db, 0.02), 4), "sigma_db": 0.02},
        "laser": {"frequency_hz": CHANNEL_HZ, "power_dbm": 13.0},
    }


def _around(g: np.random.Generator, truth: float, relative_sigma: float) -> float:
    return float(truth * (1.0 + relative_sigma * np.clip(g.normal(), -3.0, 3.0)))
