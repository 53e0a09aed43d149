"""What an emulated world starts from: seed, link, drifts, faults. Loaded from TOML; every field has a default."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sim.faults import Fault, FaultSchedule

Scale = Annotated[float, Field(ge=0.0, le=100.0)]


class ScenarioError(ValueError):
    """A scenario that cannot be used: names file, field, value and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Link(_Section):
    """The fibre between the modules."""

    loss_db: float = Field(default=10.0, ge=0.0, le=80.0, description="fibre loss, dB")
    length_km: float | None = Field(default=None, ge=0.0, le=500.0, description="km; absent: loss at 0.2 dB/km")
    exposed: float = Field(default=0.1, ge=0.0, le=1.0, description="share of the ambient swing that reaches the fibre")
    phase_drift_deg_per_h: float = Field(default=0.0, description="extra steady drift of phi_A - phi_B, degrees/h")
    phase_walk_rad_per_root_min: float = Field(default=0.0, ge=0.0, le=10.0, description="extra walk of it")
    pilot_every: int = Field(default=0, ge=0, le=65_536, description="a bright pilot every so many slots; 0: none")
    pilot_gain_db: float = Field(default=10.0, ge=0.0, le=30.0, description="a pilot slot against a signal slot")

    @property
    def km(self) -> float:
        return self.loss_db / 0.2 if self.length_km is None else self.length_km


class Detection(_Section):
    """Overrides of what the seed would draw for the detectors and for the receiver's clock."""

    darks_hz: tuple[float, float, float] | None = Field(default=None, description="DZ, DX0, DX1 at working bias, 1/s")
    afterpulse: float = Field(default=0.0, ge=0.0, le=0.1, description="probability after a click; 0 for SNSPDs")
    afterpulse_ns: float = Field(default=100.0, gt=0.0, le=10_000.0, description="decay time of afterpulses, ns")
    clock_offset_ppm: float | None = Field(default=None, ge=-5.0, le=5.0, description="receiver against transmitter")
    clock_walk: float = Field(default=1e-11, ge=0.0, le=1e-8, description="its frequency walk, 1/sqrt(s)")

    @model_validator(mode="after")
    def _not_negative(self) -> Detection:
        if self.darks_hz is not None and min(self.darks_hz) < 0.0:
            raise ValueError("darks_hz must not be negative")
        return self


class Ambient(_Section):
    """Air around the modules."""

    mean_c: float = Field(default=25.0, ge=-10.0, le=50.0)
    swing_c: float = Field(default=3.0, ge=0.0, le=20.0, description="amplitude of the daily swing, K")
    noise_c: float = Field(default=0.3, ge=0.0, le=5.0, description="slow random part, K rms, 600 s")


class Start(_Section):
    """Temperatures at t = 0; ambient when absent."""

    alice_c: float | None = Field(default=None, ge=-20.0, le=80.0)
    bob_c: float | None = Field(default=None, ge=-20.0, le=80.0)


class Modules(_Section):
    """How both modules are built where there is a choice."""

    ballast: bool = Field(default=False, description="a phase-free heater on the current source's fifth channel")
    die_noise_k: float = Field(default=0.0, ge=0.0, le=0.1, description="extra wander of each die, K rms")
    die_noise_s: float = Field(default=30.0, gt=0.0, description="its correlation time, s")
    reading_noise: float = Field(default=5e-4, ge=0.0, le=0.05, description="relative, of one analogue sample")
    patterning: float = Field(default=0.0, ge=0.0, le=0.05, description="largest effect of the slot before on a mean")
    age_h: float = Field(default=0.0, ge=0.0, le=200_000.0, description="hours in service before the start")


class Drifts(_Section):
    """Scale of each drift of the reference pair A7: 1 as specified, 0 off."""

    phase: Scale = 1.0
    bias: Scale = 1.0
    heater: Scale = 1.0
    laser: Scale = 1.0
    voa: Scale = 1.0
    fibre: Scale = 1.0
    polarisation: Scale = 1.0
    detectors: Scale = 1.0
    clock: Scale = 1.0
    ambient: Scale = 1.0


class FaultLine(_Section):
    """One scripted fault: at t, for d, on x, what."""

    at: float = Field(ge=0.0, description="s of world time")
    duration: float | None = Field(default=None, gt=0.0, alias="for", description="s; for ever when absent")
    on: str = Field(min_length=1, description="target, such as fibre or alice.heater.2")
    what: str = Field(min_length=1, description="kind, such as cut")
    value: float | None = None
    probability: float = Field(default=1.0, gt=0.0, le=1.0)
    every: float | None = Field(default=None, ge=0.02, description="s; it comes and goes with this period")
    share: float = Field(default=0.5, gt=0.0, lt=1.0, description="of each period in which it is there")

    def fault(self) -> Fault:
        length = math.inf if self.duration is None else self.duration
        whole = (self.at, self.what, self.on, length, self.value, self.probability)
        return Fault(*whole) if self.every is None else Fault(*whole, self.every, self.share)


class Scenario(_Section):
    """A world to be made. The defaults are the demo pair: 10 dB, 125 MHz."""

    seed: int = Field(default=1, ge=0, lt=2**63)
    symbol_period_ps: int = Field(default=8000, ge=4000, le=100_000_000, description="slot length, ps")
    link: Link = Link()
    detection: Detection = Detection()
    ambient: Ambient = Ambient()
    start: Start = Start()
    drifts: Drifts = Drifts()
    modules: Modules = Modules()
    fault: tuple[FaultLine, ...] = ()

    @classmethod
    def from_toml(cls, path: str | Path) -> Scenario:
        """Raises ScenarioError, naming the file and the field, when the file cannot be read or does not fit."""
        try:
            raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ScenarioError(f"{path}: not TOML: {error}") from error
        return cls.from_mapping(raw, str(path))

    @classmethod
    def from_mapping(cls, raw: dict[str, Any], origin: str = "scenario") -> Scenario:
        """As `from_toml`, for a mapping already read; `origin` names it in errors."""
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            lines = [f"{origin}: {_where(e['loc'])}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
            raise ScenarioError("\n".join(lines)) from error

    def faults(self) -> FaultSchedule:
        return FaultSchedule((line.fault() for line in self.fault), self.seed)


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "file"
