"""What every driver's options have in common: unknown fields are refused, values do not change after start."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class DriverOptions(BaseModel):
    """Base of a driver's options; see `drivers.registry` for how they are validated."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
