"""What uplink is told, and what it counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from qmodd.uplink.mqtt_link import KEEP_ALIVE_S, BrokerSettings
from qmodd.uplink.relay import split_address


class UplinkSettings(BaseModel):
    """What `qmodd uplink` needs of the configuration. Exactly one of the relay addresses, HOST:PORT."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    serial: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,31}$")]
    door: Path
    broker: BrokerSettings = BrokerSettings()
    relay_listen: str | None = None
    relay_connect: str | None = None
    keep_alive_s: Annotated[int, Field(ge=1, le=60)] = KEEP_ALIVE_S

    @model_validator(mode="after")
    def _one_relay(self) -> Self:
        if (self.relay_listen is None) == (self.relay_connect is None):
            raise ValueError("give either relay_listen (alice) or relay_connect (bob)")
        split_address(self.relay_listen or self.relay_connect or "")
        return self


@dataclass
class Counts:
    """Since start; what was dropped here, oldest first, core does not know of."""

    connects: int = 0
    telemetry_dropped: int = 0
    answers_dropped: int = 0
    requests_dropped: int = 0
    requests_too_large: int = 0
    arrived_dropped: int = 0

    def numbers(self) -> dict[str, int]:
        return {f"{name}_count": value for name, value in asdict(self).items()}
