"""Configuration of `qmodd kme`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from qmodd.receiver.settings import SettingsError, read_toml, resolved

__all__ = ["KmeSettings", "PairSettings", "SettingsError", "load_settings"]

# What may stand in a path of a URL without being escaped.
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~-]{0,127}$")]


class PairSettings(BaseModel):
    """A secure application entity (SAE) at this site, the one that it talks to, and the receiver's store with the keys
    of both. Every pair has a store of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sae_id: Id
    peer_sae_id: Id
    store: Path
    store_key: str | None = None
    certificate_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None


class KmeSettings(BaseModel):
    """Configuration of `qmodd kme`, in TOML. Paths are relative to the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kme_id: Id
    peer_kme_id: Id
    listen: Annotated[str, StringConstraints(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^:\[\]/]+):\d{1,5}$")] = "127.0.0.1:8443"
    certificate: Path
    key: Path
    client_ca: Path
    key_size: Annotated[int, Field(ge=8, le=8192, multiple_of=8)] = 256
    max_keys_per_request: Annotated[int, Field(ge=1, le=1024)] = 128
    max_key_count: Annotated[int, Field(ge=1)] = 100_000
    pair: Annotated[list[PairSettings], Field(min_length=1)]

    @model_validator(mode="after")
    def _pairs_are_apart(self) -> Self:
        for name, values in (
            ("store", [str(p.store) for p in self.pair]),
            ("sae_id with peer_sae_id", [f"{p.sae_id} {p.peer_sae_id}" for p in self.pair]),
        ):
            if twice := sorted({v for v in values if values.count(v) > 1}):
                raise ValueError(f"{name} {twice[0]} is in two pairs; each pair has its own")
        for p in self.pair:
            if p.sae_id == p.peer_sae_id:
                raise ValueError(f"{p.sae_id} cannot be its own peer")
        if self.kme_id == self.peer_kme_id:
            raise ValueError(f"kme_id and peer_kme_id are both {self.kme_id}")
        return self

    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def load_settings(path: Path) -> KmeSettings:
    """Raises SettingsError, StoreRefused."""
    settings = read_toml(path, KmeSettings)
    base = path.parent
    pairs = [
        p.model_copy(update={"store": base / p.store, "store_key": resolved(p.store_key, base)}) for p in settings.pair
    ]
    files = {name: base / getattr(settings, name) for name in ("certificate", "key", "client_ca")}
    return settings.model_copy(update={"pair": pairs, **files})
