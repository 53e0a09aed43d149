"""Small fakes of the roles over the optical laws of the reference pair: no bytes, no buses, time that only counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import asin, cos, erf, pi, sin, sqrt

import numpy as np
import numpy.typing as npt

from calibration.context import CalibrationContext, LightRefused, Settings
from calibration.factory import FactoryRecord
from calibration.store import RecordStore
from drivers.roles import LaserReading, LightMode, RailReading, TagBlock, TecReading, TecState

DEAD_S = 19e-9  # dead time and recovery of each detector of the fake
SLOT_S, PULSE_S, WINDOW_S = 8e-9, 100e-12, 400e-12
THETA = np.array([0.04 * np.exp(-abs(i - j) / 1.5) if i != j else 1.0 for i in range(4) for j in range(4)]).reshape(
    4, 4
)
H_NU = 6.62607015e-34 * 193.4145e12
ALICE_ADC = ("pa0", "pa1", "heater_monitor", "pa3", "pa4", "pa5", "pa6", "short")


@dataclass
class FakeTime:
    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def utc(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class FakeHeaters:
    """R0, rho, P_pi and phi0 drawn per heater; crosstalk, and the die's 1 mK/mW at once."""

    max_current_a = 0.033

    def __init__(self, channels: tuple[str, ...], rng: np.random.Generator) -> None:
        self.channels = channels
        n = 4
        self.r0 = 90.0 * (1 + rng.uniform(-0.06, 0.06, n))
        self.rho = np.full(n, 0.9)
        self.p_pi = 0.040 * (1 + 0.06 * rng.normal(size=n))
        self.phi0 = rng.uniform(0, 2 * pi, n)
        self.amperes = dict.fromkeys(channels, 0.0)
        self.routed: str | None = None
        self.open: frozenset[str] = frozenset()
        self.shorted: frozenset[str] = frozenset()
        self.die_rad_per_w = {"phase": 0.70 * pi / 180 * 1000}
        self.theta = THETA

    async def set_current(self, channel: str, amperes: float) -> None:
        assert 0 <= amperes <= self.max_current_a
        self.amperes[channel] = amperes

    def current(self, channel: str) -> float:
        return self.amperes[channel]

    async def open_circuits(self) -> frozenset[str]:
        return frozenset(c for c in self.open if self.amperes[c] > 0)

    async def monitor(self, channel: str | None) -> None:
        self.routed = channel

    def power(self) -> npt.NDArray[np.float64]:
        i = np.array([self.amperes[c] for c in self.channels[:4]])
        return np.asarray(i**2 * self.r0 / (1 - i**2 * self.r0 * self.rho))

    def voltage(self) -> float:
        if self.routed is None:
            return 0.0
        if self.routed in self.open:
            return 4.0 if self.amperes[self.routed] else 0.0
        if self.routed in self.shorted:
            return 2.0 * self.amperes[self.routed]
        i = self.amperes[self.routed]
        return float(self.power()[self.channels.index(self.routed)] / i) if i else 0.0

    def phase(self, channel: str) -> float:
        k = self.channels.index(channel)
        p = self.power()
        die = self.die_rad_per_w.get(channel, 0.0) * float(p.sum())
        return float(self.phi0[k] + pi * (self.theta[k] @ (p / self.p_pi)) + die)


class FakeRail:
    def __init__(self, heaters: FakeHeaters) -> None:
        self.heaters, self.gain = heaters, 1.0

    async def read(self) -> RailReading:
        amperes = 0.012 + self.gain * sum(a for c, a in self.heaters.amperes.items() if c not in self.heaters.open)
        return RailReading(4.0, amperes, 4.0 * amperes, 31.0)


class FakeBiases:
    def __init__(self, channels: tuple[str, ...]) -> None:
        self.channels = channels
        self.volts = dict.fromkeys(channels, 0.0)

    async def set_voltage(self, channel: str, volts: float) -> None:
        low, high = self.limits(channel)
        assert low <= volts <= high
        self.volts[channel] = volts

    def voltage(self, channel: str) -> float:
        return self.volts[channel]

    def limits(self, channel: str) -> tuple[float, float]:
        return (0.0, 5.0) if channel in ("voa", "shutter") else (-10.0, 10.0)


class FakeSubmount:
    celsius = 30.0

    async def read_celsius(self) -> float:
        return self.celsius


class FakeTec:
    async def read(self) -> TecReading:
        return TecReading(30.0, 27.0, 30.0, 30.0, 0.2, 0.5, TecState.STABLE)

    async def set_target(self, celsius: float) -> None: ...
    async def set_gains(self, kp_a_per_k: float, ti_s: float, td_s: float = 0.0) -> None: ...
    async def set_current_limit(self, amperes: float) -> None: ...
    async def enable(self, on: bool) -> None: ...


class FakeLaser:
    emitting = False
    dead = False
    frequency, power = 0.0, 0.0

    async def read(self) -> LaserReading:
        return LaserReading(self.emitting, self.frequency, self.power, 0)

    async def set_frequency(self, hz: float) -> None:
        assert not self.emitting
        self.frequency = hz

    async def set_power(self, dbm: float) -> None:
        self.power = dbm

    async def enable(self, on: bool) -> None:
        self.emitting = on and not self.dead


@dataclass
class FakeSource:
    period_ps: float = 8000.0
    bin_ps: float = 800.0
    rf: dict[str, float] = field(default_factory=lambda: {"carver": 0.0, "state": 0.0, "decoy": 0.0})
    mode: LightMode = LightMode.OFF
    state: int = 0
    intensity: int = 0
    run_id: int = 0

    async def set_probabilities(self, p_x: float, p_decoy: float) -> tuple[float, float]:
        return p_x, p_decoy

    async def set_rf(
        self, *, carver_v: float | None = None, state_v: float | None = None, decoy_v: float | None = None
    ) -> None:
        for name, v in (("carver", carver_v), ("state", state_v), ("decoy", decoy_v)):
            if v is not None:
                self.rf[name] = v

    async def set_randomiser(self, on: bool) -> float:
        return 1.8

    async def run(self) -> int:
        self.run_id += 1
        return self.run_id

    async def stop(self) -> None:
        self.run_id = 0

    async def now(self) -> tuple[int, int]:
        return self.run_id, 0

    async def set_mode(self, mode: LightMode, state: int = 0, intensity: int = 0, at_slot: int | None = None) -> None:
        assert self.run_id
        self.mode, self.state, self.intensity = mode, state, intensity

    async def read_symbols(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return np.zeros(len(slots), np.uint8)

    async def free(self, before_slot: int) -> None: ...

    async def questionable(self) -> int:
        return 0


class FakeAlice:
    """The transmitter's light after reference pair A2, and its photodiodes as an ADC with log amplifiers."""

    channels = ALICE_ADC

    def __init__(self, seed: int = 1, noise: float = 0.002) -> None:
        self.rng = np.random.default_rng(seed)
        r = self.rng
        self.time = FakeTime()
        self.heaters = FakeHeaters(("filter", "split", "phase", "shutter", "spare"), r)
        self.biases = FakeBiases(("carver", "state", "decoy", "voa"))
        self.source, self.laser = FakeSource(), FakeLaser()
        self.rail = FakeRail(self.heaters)
        self.noise = noise
        self.v_pi = {n: 4.0 + 0.2 * r.normal() for n in ("carver", "state", "decoy")}
        self.v_rf = {n: 4.0 * (1 + 0.05 * r.normal()) for n in ("carver", "state", "decoy")}
        self.v0 = {n: r.uniform(-4, 4) for n in ("carver", "state", "decoy")}
        self.er = {"carver": 10**-2.7, "state": 10**-2.2, "decoy": 10**-2.5}
        self.long = 10 ** (-r.uniform(0.9, 1.6) / 10)
        self.dark_a = 3e-10
        self.dead: frozenset[str] = frozenset()

    def bias(self, name: str) -> float:
        return pi * (self.biases.volts[name] - self.v0[name]) / self.v_pi[name]

    def _mzm(self, name: str, theta: float) -> float:
        return sin(theta / 2) ** 2 + self.er[name] * cos(theta / 2) ** 2

    def powers(self) -> dict[str, float]:
        """W at each monitor."""
        p = 0.0006 * 10 ** ((self.laser.power - 13.0) / 10) if self.laser.emitting else 0.0
        out = {"pa6": 0.01 * p, "pa5": 0.0}
        p *= (1 + cos(self.heaters.phase("filter"))) / 2
        out["pa0"] = 0.01 * p
        off = self._mzm("carver", self.bias("carver"))
        drive = pi * self.source.rf["carver"] / self.v_rf["carver"]
        pulsed = self.source.mode not in (LightMode.OFF, LightMode.CW)
        on = self._mzm("carver", drive + self.bias("carver")) if pulsed else off
        kappa, le = sin(self.heaters.phase("split") / 2) ** 2, self.long
        mix = sqrt(kappa * (1 - kappa) * le) * cos(self.heaters.phase("phase"))
        mean = (1 - kappa + kappa * le) / 2
        duty = PULSE_S / SLOT_S
        leak = (mean - mix) * off
        out["pa1"] = 0.02 * p * (leak if not pulsed else mean * on * duty + leak * (1 - duty))
        early, late = p * (1 - kappa) / 2, p * kappa * le / 2
        undriven = self._mzm("state", self.bias("state"))
        decoy_bias = self.bias("decoy") + pi  # peak at v0
        if not pulsed:
            after = (mean + mix) * p * off * undriven * self._mzm("decoy", decoy_bias)
        else:
            after = self._pulses(early, late, on, off, undriven, decoy_bias)
            after += (mean + mix) * p * off * undriven * self._mzm("decoy", decoy_bias) * (1 - 2 * WINDOW_S / SLOT_S)
        out["pa3"] = 0.05 * after
        out["pa4"] = after * sin(self.heaters.phase("shutter") / 2) ** 2
        return out

    def _pulses(self, early: float, late: float, on: float, off: float, undriven: float, decoy_bias: float) -> float:
        full = pi * self.source.rf["state"] / self.v_rf["state"]
        table = [(full, 0.0), (0.0, full), (full / 2, full / 2), (full / 2, -full / 2)]
        th = table[self.source.state] if self.source.mode is LightMode.FIX else (0.0, 0.0)
        decoy = pi * self.source.rf["decoy"] / self.v_rf["decoy"] * (self.source.intensity if th != (0.0, 0.0) else 0)
        total = 0.0
        for part, theta in zip((early, late), th, strict=True):
            s = self._mzm("state", theta + self.bias("state"))
            total += part * s * (on * PULSE_S + off * (WINDOW_S - PULSE_S)) / SLOT_S
        return total * self._mzm("decoy", decoy_bias + decoy)

    async def read_volts(self, samples: int = 1) -> dict[str, float]:
        watts = self.powers()
        out = {"short": 0.0, "heater_monitor": self.heaters.voltage() / 4 + 1e-5 * self.rng.normal() / sqrt(samples)}
        for name in ALICE_ADC:
            if name in watts:
                amperes = (0.0 if name in self.dead else 0.9 * watts[name]) + self.dark_a
                scatter = 0.2 * np.log10(np.e) * self.noise * self.rng.normal() / sqrt(samples)
                out[name] = max(0.0, 0.2 * np.log10(amperes / 1e-10) + float(scatter))
        return out

    def context(self, store: RecordStore | None = None, **settings: object) -> CalibrationContext:
        volts = np.linspace(0.0, 5.0, 60)
        factory = FactoryRecord.from_mapping(
            {
                "serial": "A1",
                "photodiodes": {
                    name: {"responsivity_a_per_w": 0.9, "tap_ratio": tap}
                    for name, tap in {"pa0": 0.01, "pa1": 0.02, "pa3": 0.05, "pa4": 1.0, "pa6": 0.01}.items()
                },
                "mean_photon": {"constant": 10**-2.65 / (0.9 * 0.05 * H_NU), "relative_sigma": 0.005},
                "voa": {"volts": list(volts), "db": list(0.8 + volts + 1.35 * volts**2), "sigma_db": 0.02},
            }
        )
        return CalibrationContext(
            side="alice", heaters=self.heaters, biases=self.biases, adc=self, rail=self.rail, submount=FakeSubmount(),
            tec=FakeTec(), factory=factory, clock=self.time, store=store or RecordStore(), laser=self.laser,
            source=self.source, sleep=self.time.sleep, settings=Settings(**settings),  # type: ignore[arg-type]
        )  # fmt: skip


class FakeBob:
    """The receiver's optics, detectors and tagger, with the transmitter's states as ideal but for S's extinction."""

    channels = ("pb0", "pb1", "heater_monitor", "pb2", "pb3", "x5", "x6", "short")

    def __init__(self, seed: int = 2) -> None:
        self.rng = np.random.default_rng(seed)
        r = self.rng
        self.time = FakeTime()
        self.heaters = FakeHeaters(("basis", "split", "phase", "combine", "spare"), r)
        self.heaters.open = frozenset({"spare"})
        self.biases = FakeBiases(("shutter",))
        self.rail = FakeRail(self.heaters)
        self.xi = 0.079 * (1 if seed % 2 else -1)
        self.long = 10 ** (-r.uniform(0.9, 1.6) / 10)
        self.i_sw = r.uniform(18e-6, 24e-6, 3)
        self.eff = r.uniform(0.75, 0.88, 3)
        self.delay = r.uniform(0.0, 3000.0, 3)
        self.offset = r.uniform(-2e-6, 2e-6)
        self.bias = np.zeros(3)
        self.latched = np.zeros(3, bool)
        self.visibility = 0.985
        self.mode, self.state, self.scale = LightMode.OFF, 0, 1.0
        self.flux = 0.054 / 1.8  # photons a slot at the chip in normal service
        self.refuse = ""
        self.blind: frozenset[int] = frozenset()
        self.dark_gain = 1.0
        self.gate = (0, 0)
        self.last = 0.0

    # light service
    async def set(self, mode: LightMode, state: int = 0, intensity: int = 0, photons_scale: float = 1.0) -> None:
        if self.refuse:
            raise LightRefused(self.refuse)
        self.mode, self.state, self.scale = mode, state, photons_scale

    def cells(self) -> npt.NDArray[np.float64]:
        """Photons a slot at DZ (early, late, 0), DX0, DX1 (bins 0, 1, 2); shape (3, 3)."""
        out = np.zeros((3, 3))
        if self.mode is not LightMode.FIX or self.biases.volts["shutter"] < 2.5:
            return out
        mu = self.flux * self.scale
        field_ = {
            0: (1j, self.xi),
            1: (self.xi, 1j),
            2: (self._f(pi / 2), self._f(pi / 2)),
            3: (self._f(pi / 2), self._f(-pi / 2)),
        }
        e, late = (sqrt(mu) * complex(x) for x in field_[self.state])
        kappa = sin(self.heaters.phase("basis") / 2) ** 2
        out[0, :2] = (1 - kappa) * np.abs([e, late]) ** 2
        ki, ko = (sin(self.heaters.phase(c) / 2) ** 2 for c in ("split", "combine"))
        ti, ri, to, ro = sqrt(1 - ki), sqrt(ki), sqrt(1 - ko), sqrt(ko)
        s = ti * late
        g = 1j * ri * sqrt(self.long) * np.exp(1j * self.heaters.phase("phase")) * e
        x0 = 2 * self.visibility * np.real(np.conj(to * s) * (1j * ro * g))
        x1 = 2 * self.visibility * np.real(np.conj(1j * ro * s) * (to * g))
        se, sl, i_e, i_l = ti**2 * abs(e) ** 2, ri**2 * self.long * abs(late) ** 2, abs(g) ** 2, abs(s) ** 2
        out[1] = kappa * np.array([to**2 * se, to**2 * i_l + ro**2 * i_e + x0, ro**2 * sl])
        out[2] = kappa * np.array([ro**2 * se, ro**2 * i_l + to**2 * i_e + x1, to**2 * sl])
        return np.maximum(out, 0.0)

    def _f(self, theta: float) -> complex:
        return 1j * sin(theta / 2) + self.xi * cos(theta / 2)

    def means(self) -> npt.NDArray[np.float64]:
        """Clicks/s by detector and bin, light only; shape (3, 3)."""
        de = np.array([0.5 * (1 + erf((b - 0.72 * i) / (0.08 * i))) for b, i in zip(self.bias, self.i_sw, strict=True)])
        de = np.where(self.latched, 0.0, de * self.eff)
        for d in self.blind:
            de[d] = 0.0
        rates = self.cells() * de[:, None] / SLOT_S
        return np.asarray(rates / (1.0 + rates.sum(axis=1, keepdims=True) * DEAD_S))

    def darks(self) -> npt.NDArray[np.float64]:
        d = self.dark_gain * 100 * np.exp((self.bias - 0.92 * self.i_sw) / 1.1e-6)
        return np.where(self.latched, 0.0, d)

    # detectors
    async def set_bias(self, bias_a: Sequence[float]) -> None:
        self.bias = np.array(bias_a)
        self.latched = (self.latched & (self.bias > 0)) | (self.bias > self.i_sw)

    async def read_bias_voltage(self) -> tuple[float, ...]:
        return tuple(2.0 if x else 0.001 for x in self.latched)

    async def read_rates(self, period_s: float) -> npt.NDArray[np.float64]:
        self.time.now += period_s
        return np.asarray(self.rng.poisson((self.means().sum(1) + self.darks()) * period_s) / period_s)

    # tagger
    async def run(self) -> None:
        self.last = self.time.now

    async def stop(self) -> None: ...

    async def now_ps(self) -> int:
        return round(self.time.now * 1e12 * (1 + self.offset))

    async def set_gate(self, open_ps: int, period_ps: int) -> None:
        self.gate = (open_ps, period_ps)

    async def counts(self) -> npt.NDArray[np.int64]:
        return np.zeros(3, np.int64)

    async def read(self) -> TagBlock:
        start, end = self.last, self.time.now
        self.last = end
        times, channels = [], []
        for d in range(3):
            for b in range(3):
                n = self.rng.poisson(self.means()[d, b] * (end - start))
                slots = self.rng.integers(int(start / SLOT_S), max(int(end / SLOT_S), int(start / SLOT_S) + 1), n)
                t = slots * 8000.0 + b * 800.0 + self.delay[d] + 20 * self.rng.normal(size=n)
                times.append(t * (1 + self.offset))
                channels.append(np.full(n, d))
        t, c = np.concatenate(times), np.concatenate(channels)
        order = np.argsort(t)
        to = round(end * 1e12 * (1 + self.offset))
        return TagBlock(t[order].astype(np.int64), c[order].astype(np.uint8), 0, to, 0, False)

    async def read_volts(self, samples: int = 1) -> dict[str, float]:
        out = dict.fromkeys(self.channels, 0.0)
        out["heater_monitor"] = self.heaters.voltage() / 4 + 1e-5 * float(self.rng.normal()) / sqrt(samples)
        return out

    def context(self, store: RecordStore | None = None, **settings: object) -> CalibrationContext:
        return CalibrationContext(
            side="bob", heaters=self.heaters, biases=self.biases, adc=self, rail=self.rail, submount=FakeSubmount(),
            tec=FakeTec(), factory=FactoryRecord(serial="B1"), clock=self.time, store=store or RecordStore(), tags=self,
            detectors=self, light=self, sleep=self.time.sleep, settings=Settings(**settings),  # type: ignore[arg-type]
        )  # fmt: skip


def split_target(long: float) -> float:
    """Input coupler's phase at which both arms balance: kappa = 1/(1 + l)."""
    return 2 * asin(sqrt(1 / (1 + long)))
