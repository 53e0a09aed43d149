"""The transmitter's fake light with records that are exact: loops are tested without the calibrations before them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import acos, asin, pi, sqrt, tan

from calibration.context import CalibrationContext
from calibration.names import INTENSITIES, STATES
from calibration.record import Record
from drivers.errors import OutOfRange
from drivers.roles import LightMode
from tests.calibration.fakes import FakeAlice

RATIO = 1 / 3
FINE_RANGE_HZ = 6e9


class Laser:
    """Emits; drifts as told; knows fine tuning."""

    def __init__(self) -> None:
        from tests.calibration.fakes import FakeLaser

        self.fake = FakeLaser()
        self.fake.emitting = True
        self.off_hz, self.fine_hz = 0.0, 0.0
        self.writes = 0

    @property
    def emitting(self) -> bool:
        return self.fake.emitting

    @emitting.setter
    def emitting(self, on: bool) -> None:
        self.fake.emitting = on

    @property
    def power(self) -> float:
        return self.fake.power

    async def set_power(self, dbm: float) -> None:
        await self.fake.set_power(dbm)

    async def set_fine_hz(self, hz: float) -> None:
        if abs(hz) > FINE_RANGE_HZ:
            raise OutOfRange(f"laser.fine: {hz} Hz")
        self.fine_hz = hz
        self.writes += 1

    async def read(self):  # type: ignore[no-untyped-def]
        seen = await self.fake.read()
        frequency = round((193.4145e12 + self.off_hz + self.fine_hz) / 1e6) * 1e6
        return type(seen)(seen.emitting, frequency, seen.power_dbm, seen.status, seen.alarms)


class Light(FakeAlice):
    """At its set points, sending FIX Z0 signal; `context_` has a record of everything."""

    def __init__(self, seed: int = 1, noise: float = 0.002) -> None:
        super().__init__(seed, noise)
        self.laser = Laser()  # type: ignore[assignment]
        h = self.heaters
        h.theta = h.theta * 0.0 + [[float(i == j) for j in range(4)] for i in range(4)]
        h.die_rad_per_w = {}
        self.source.run_id = 1
        self.context_ = self.context()
        turn = 2 * acos(sqrt(RATIO))
        self.turn = turn
        balance = 2 * asin(sqrt(1 / (1 + self.long)))
        targets = {"filter": 0.0, "split": balance, "phase": 1.0, "shutter": 0.0}
        heaters: dict[str, float] = {}
        power: dict[str, float] = {}
        for k, name in enumerate(h.channels[:4]):
            heaters |= {f"{name}_r0_ohm": h.r0[k], f"{name}_rho_per_w": h.rho[k]}
            power[name] = ((targets[name] - h.phi0[k]) % (2 * pi)) / pi * h.p_pi[k]
            h.amperes[name] = sqrt(power[name] / (h.r0[k] * (1 + h.rho[k] * power[name])))
        for name, share in (("carver", 1.0), ("state", 1.0), ("decoy", turn / pi)):
            self.biases.volts[name] = self.v0[name]
            self.source.rf[name] = share * self.v_rf[name]
        self.biases.volts["voa"] = 4.0
        self.put("heater_iv", heaters)
        self.put("photodiode_zero", {f"{n}_dark_a": self.dark_a for n in ("pa0", "pa1", "pa3", "pa6")})
        self.put("filter_peak", {"p_pi_w": h.p_pi[0], "power_w": power["filter"]})
        self.put("amzi_split", {"p_pi_w": h.p_pi[1], "power_w": power["split"], "phi0_rad": h.phi0[1]})
        self.put("carver_bias", {"v_pi_v": self.v_pi["carver"], "null_v": self.v0["carver"]})
        self.put("state_trim", {"null_v": self.v0["state"], "null_slope_per_v": pi / self.v_pi["state"]})
        slope = -tan(turn / 2) * pi / self.v_pi["decoy"]
        ratio = self._mzm("decoy", pi + turn) / self._mzm("decoy", pi)
        self.put(
            "decoy",
            {
                "peak_v": self.v0["decoy"],
                "ratio": ratio,
                "ratio_slope_per_v": slope,
                "background": self.background(),
            },
        )
        self.put("mean_photon", {"voa_db": 26.4, **self.currents()})

    def put(self, name: str, value: dict[str, float]) -> Record:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        return self.context_.store.append(
            Record(name=name, value=value, created=now, valid_until=now + timedelta(days=1))
        )

    def background(self) -> float:
        """Share of a Z signal's reading that the decoy's drive does not reach: what its null leaves, extinction off."""
        self.source.mode, rf = LightMode.FIX, self.source.rf["decoy"]
        seen = []
        for volts, intensity in ((rf, 0), (self.v_rf["decoy"], 1)):
            self.source.rf["decoy"] = volts
            total = 0.0
            for self.source.state in (0, 1):
                self.source.intensity = intensity
                total += self.powers()["pa3"]
            seen.append(total)
        self.source.rf["decoy"], self.source.state, self.source.intensity = rf, 0, 0
        return seen[1] / seen[0] - self.er["decoy"]

    def currents(self) -> dict[str, float]:
        """Exact currents of PA3 by class, A."""
        out = {}
        for s, state in enumerate(STATES):
            for k, intensity in enumerate(INTENSITIES):
                self.source.mode, self.source.state, self.source.intensity = LightMode.FIX, s, k
                out[f"i_{state}_{intensity}_a"] = 0.9 * self.powers()["pa3"]
        self.source.state = self.source.intensity = 0
        return out


class Keying(Light):
    """As in KEY mode: PA3 sees the mixture of all classes."""

    p_x, p_decoy = 0.25, 0.5

    def powers(self) -> dict[str, float]:
        if self.source.mode is not LightMode.KEY:
            return super().powers()
        mixed: dict[str, float] = {}
        self.source.mode = LightMode.FIX
        for s in range(4):
            for k in range(2):
                share = 0.5 * (self.p_x if s >= 2 else 1 - self.p_x) * (self.p_decoy if k else 1 - self.p_decoy)
                self.source.state, self.source.intensity = s, k
                for name, watts in super().powers().items():
                    mixed[name] = mixed.get(name, 0.0) + share * watts
        self.source.mode, self.source.state, self.source.intensity = LightMode.KEY, 0, 0
        return mixed

    def true_ratio(self) -> float:
        """Decoy over signal as sent."""
        d = self.bias("decoy")
        return self._mzm("decoy", pi + self.turn + d) / self._mzm("decoy", pi + d)


def context_of(light: Light) -> CalibrationContext:
    return light.context_
