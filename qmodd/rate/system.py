"""A link's parameters, as data sheets and calibrations give them; read from TOML. Nothing here knows the emulator."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qmodd.keys.estimation import THEOREMS, Proof

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Inside = Annotated[float, Field(gt=0.0, lt=1.0)]
Three = Annotated[tuple[float, float, float], Field(min_length=3, max_length=3)]


class BadSystem(ValueError):
    """A system file that cannot be used: names file, field, value and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(_Section):
    """`mu`: mean photon numbers at the output, brightest first; `mu_uncertainty`: half width of the calibrated interval
    of each, relative; `p_x`: probability of the X basis; `error_z`: share of a Z pulse's light in the wrong bin."""

    symbol_period_ps: float = Field(default=8000.0, gt=0.0, le=1e9)
    mu: tuple[float, ...] = (0.54, 0.18)
    p_mu: tuple[float, ...] = (0.5, 0.5)
    mu_uncertainty: tuple[float, ...] = (0.0, 0.0)
    p_x: Inside = 0.25
    error_z: Share = 0.0063

    @model_validator(mode="after")
    def _check(self) -> Source:
        if not 2 <= len(self.mu) == len(self.p_mu) <= 3:
            raise ValueError(f"mu {self.mu} and p_mu {self.p_mu}: two or three intensities, as many of each")
        if abs(sum(self.p_mu) - 1.0) > 1e-9 or min(self.p_mu) <= 0.0:
            raise ValueError(f"p_mu {self.p_mu}: probabilities above 0 that add up to 1")
        if not all(a > b for a, b in zip(self.mu, self.mu[1:], strict=False)) or not 0.0 <= self.mu[-1] <= 10.0:
            raise ValueError(f"mu {self.mu}: brightest first, 0 to 10")
        if any(not 0.0 <= u < 0.5 for u in self.mu_uncertainty):
            raise ValueError(f"mu_uncertainty {self.mu_uncertainty}: 0 to 0.5")
        return self

    @property
    def mu_intervals(self) -> list[tuple[float, float]]:
        """What the key length is minimised over."""
        widths = (*self.mu_uncertainty, *[0.0] * len(self.mu))
        return [(m * (1.0 - u), m * (1.0 + u)) for m, u in zip(self.mu, widths, strict=False)]


class Receiver(_Section):
    """Triples are DZ, DX0, DX1. `basis_split`: share of the light that goes to the X arm; losses from the input to the
    detectors, dB, the splitter's not included; `gate_share`: clicks inside the gate of their bin; `hold_off_slots`: 0
    without that rule; `error_x`: of the light in the bin where the two pulses interfere, the share at the wrong output;
    `interferes`: share of the X arm's light in that bin (1: no satellites, as with polarisation)."""

    basis_split: Inside = 0.26
    loss_z_db: float = Field(default=2.8, ge=0.0, le=60.0)
    loss_x_db: float = Field(default=3.1, ge=0.0, le=60.0)
    efficiency: Three = (0.82, 0.80, 0.81)
    darks_hz: Three = (100.0, 100.0, 100.0)
    dead_ns: Three = (15.0, 15.0, 15.0)
    recovery_ns: Three = (4.0, 4.0, 4.0)
    half_gate_ps: float = Field(default=200.0, gt=0.0)
    gate_share: Share = 0.999
    hold_off_slots: int = Field(default=6, ge=0, le=1000)
    error_x: Share = 0.0125
    interferes: Share = 0.5

    @model_validator(mode="after")
    def _check(self) -> Receiver:
        if not all(0.0 < e <= 1.0 for e in self.efficiency):
            raise ValueError(f"efficiency {self.efficiency}: above 0, at most 1")
        for name in ("darks_hz", "dead_ns", "recovery_ns"):
            if min(getattr(self, name)) < 0.0:
                raise ValueError(f"{name} {getattr(self, name)}: not negative")
        return self


class Keys(_Section):
    """`efficiency`: bits disclosed over n h(QBER) in planning; `tag_bits`: the verification tag beside them."""

    proof: Proof = Proof.WIESEMANN2024
    eps_sec: float = Field(default=1e-9, gt=0.0, lt=1.0)
    eps_cor: float = Field(default=1e-15, gt=0.0, lt=1.0)
    n_z: int = Field(default=983_040, ge=1000, le=10**12)
    efficiency: float = Field(default=1.25, ge=1.0, le=5.0)
    tag_bits: int = Field(default=128, ge=0, le=4096)


class System(_Section):
    """One link without its fibre. The defaults are the reference pair."""

    name: str = "reference pair"
    sources: tuple[str, ...] = Field(default=(), description="where the numbers were published")
    source: Source = Source()
    receiver: Receiver = Receiver()
    keys: Keys = Keys()

    @model_validator(mode="after")
    def _matches(self) -> System:
        wanted = THEOREMS[self.keys.proof].intensities
        if len(self.source.mu) != wanted:
            raise ValueError(f"keys.proof {self.keys.proof} needs {wanted} intensities, source.mu has {self.source.mu}")
        return self


def load(path: Path) -> System:
    """Raises BadSystem naming file, field, value and limit."""
    try:
        raw = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise BadSystem(f"{path}: {e}") from None
    raw.pop("published", None)
    try:
        return System.model_validate(raw)
    except ValidationError as e:
        raise BadSystem("\n".join(f"{path}: {line}" for line in faults(e))) from None


def faults(error: ValidationError) -> list[str]:
    """One line a fault: field, value, what is allowed."""
    return [f"{'.'.join(map(str, f['loc'])) or 'system'} = {_short(f['input'])}: {f['msg']}" for f in error.errors()]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def transmission(db: float) -> float:
    return math.pow(10.0, -db / 10.0)
