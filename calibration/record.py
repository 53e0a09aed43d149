"""One calibration result: immutable, versioned, with everything that is needed to judge it later."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from calibration.units import unit_of


class Conditions(BaseModel):
    """Under which a record was taken. Temperatures in degrees Celsius; `operator` is "automatic" or a name;
    `firmware_sha256` is over driver, model, serial number and firmware of every device."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperatures_c: dict[str, float] = {}
    operator: str = "automatic"
    firmware_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")


class Record(BaseModel):
    """Result of one calibration.

    `value` maps names, unit included (p_pi_w, null_v), to SI floats. `covariance` is the matrix over `covariance_names`
    in that order: the estimated parameters; plain settings need no row. `residual_rms` and `residuals` (reading less
    model, in the order of the readings) are in the unit of the fitted reading unless the procedure says otherwise.
    `valid_until` is UTC: it outlives restarts and never depends on a monotonic clock. `version` counts per name from 1
    and is given by the store; `layout` says what the values mean: a procedure raises its own when that changes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    version: int = Field(default=0, ge=0)
    layout: int = Field(default=1, ge=1)
    value: dict[str, float]
    covariance_names: tuple[str, ...] = ()
    covariance: tuple[tuple[float, ...], ...] = ()
    residual_rms: float = Field(default=0.0, ge=0.0)
    residuals: tuple[float, ...] = ()
    raw_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    conditions: Conditions = Conditions()
    parents: dict[str, int] = {}
    created: datetime
    valid_until: datetime
    provenance: str = ""

    @field_validator("created", "valid_until")
    @classmethod
    def _utc(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value

    @model_validator(mode="after")
    def _shape(self) -> Self:
        n = len(self.covariance_names)
        if len(self.covariance) != n or any(len(row) != n for row in self.covariance):
            raise ValueError(f"covariance must be {n} x {n}, one row a name of {self.covariance_names}")
        unknown = [name for name in self.covariance_names if name not in self.value]
        if unknown:
            raise ValueError(f"covariance names {unknown} are not in value")
        return self

    def sigma(self, name: str) -> float:
        """Standard uncertainty of a value, in its unit; 0 for a plain setting. Raises KeyError for an unknown name."""
        if name not in self.value:
            raise KeyError(name)
        if name not in self.covariance_names:
            return 0.0
        i = self.covariance_names.index(name)
        return float(max(0.0, self.covariance[i][i]) ** 0.5)

    @property
    def units(self) -> dict[str, str]:
        """Unit of every value."""
        return {name: unit_of(name) for name in self.value}

    def to_json(self) -> str:
        """One line of JSON; `from_json` restores an equal record."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Raises pydantic.ValidationError on a broken or foreign line."""
        return cls.model_validate_json(text)


class Renewal(BaseModel):
    """A passed data check of one record: it is good until later, and at these temperatures. The record itself stays as
    it is. `by` is "automatic" or a name, `read` what the check read (SI, units in the names)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    version: int = Field(ge=1)
    at: datetime
    valid_until: datetime
    by: str = "automatic"
    read: dict[str, float] = {}
    temperatures_c: dict[str, float] = {}

    @field_validator("at", "valid_until")
    @classmethod
    def _utc(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value


def as_matrix(covariance: npt.NDArray[np.floating[Any]]) -> tuple[tuple[float, ...], ...]:
    """(n, n) array to the form that a record keeps."""
    return tuple(tuple(float(x) for x in row) for row in covariance)


def diagonal(sigmas: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """Covariance of independent values with these standard uncertainties."""
    return as_matrix(np.diag(np.square(np.asarray(sigmas, dtype=np.float64))))


def block_diagonal(blocks: Sequence[npt.NDArray[np.floating[Any]]]) -> tuple[tuple[float, ...], ...]:
    """Covariance of groups of values that are independent of one another; each block is (k, k)."""
    n = sum(len(b) for b in blocks)
    out = np.zeros((n, n))
    at = 0
    for b in blocks:
        out[at : at + len(b), at : at + len(b)] = b
        at += len(b)
    return as_matrix(out)


def digest(raw: Mapping[str, Any]) -> str:
    """SHA-256 over the raw readings, by name and in the order of the names: the same readings give the same digest."""
    h = hashlib.sha256()
    for name in sorted(raw):
        h.update(name.encode() + b"\0")
        h.update(np.ascontiguousarray(np.asarray(raw[name], dtype=np.float64)).tobytes())
    return h.hexdigest()
