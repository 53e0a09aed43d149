"""Configuration of `qmodd receive`."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qmodd.clock import Clock
from qmodd.identity import Recipient, SignerPublic
from qmodd.randomness import SystemRandomness
from qmodd.receiver.receiver import Receiver
from qmodd.receiver.sealing import key_path
from qmodd.receiver.sink import FileSink
from qmodd.uplink.mqtt_link import BrokerSettings

Settings = TypeVar("Settings", bound=BaseModel)


class SettingsError(Exception):
    """One line a fault, with file and field."""


class SenderSettings(BaseModel):
    """A module whose keys are believed; `public` is relative to the configuration file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    serial: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,31}$")]
    public: Path


class SinkSettings(BaseModel):
    """Where usable keys go as ETSI GS QKD 014 containers."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    directory: Path
    keys_per_container: Annotated[int, Field(ge=1, le=1024)] = 64


class ReceiveSettings(BaseModel):
    """Configuration of `qmodd receive`, in TOML. Paths are relative to the file; `identity` and `store_key` may be
    credentials of the service manager."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    identity: Path
    store: Path
    store_key: str | None = None
    broker: BrokerSettings = BrokerSettings()
    sender: Annotated[list[SenderSettings], Field(min_length=1)]
    sink: SinkSettings | None = None


def load_settings(path: Path) -> ReceiveSettings:
    """Raises SettingsError, StoreRefused."""
    settings = read_toml(path, ReceiveSettings)
    base = path.parent
    senders = [s.model_copy(update={"public": base / s.public}) for s in settings.sender]
    sink = settings.sink and settings.sink.model_copy(update={"directory": base / settings.sink.directory})
    update = {
        "identity": key_path(str(settings.identity), base, os.environ),
        "store": base / settings.store,
        "sender": senders,
        "sink": sink,
        "broker": settings.broker.relative_to(base),
        "store_key": resolved(settings.store_key, base),
    }
    return settings.model_copy(update=update)


def resolved(store_key: str | None, base: Path, environ: Mapping[str, str] = os.environ) -> str | None:
    """Raises StoreRefused for a credential that nobody gives."""
    return None if store_key is None else str(key_path(store_key, base, environ))


def read_toml(path: Path, model: type[Settings]) -> Settings:
    """Raises SettingsError."""
    try:
        return model.model_validate(tomllib.loads(path.read_text()))
    except OSError as e:
        raise SettingsError(f"{path}: cannot be read: {e.strerror}") from None
    except tomllib.TOMLDecodeError as e:
        raise SettingsError(f"{path}: not TOML: {e}") from None
    except ValidationError as e:
        lines = [f"{path}: {'.'.join(map(str, x['loc'])) or 'file'}: {x['msg']}" for x in e.errors()]
        raise SettingsError("\n".join(lines)) from None


def open_receiver(settings: ReceiveSettings, clock: Clock) -> Receiver:
    """Raises BadKeyFile, StoreRefused."""
    identity = Recipient.load(settings.identity)
    senders = {s.serial: SignerPublic.load(s.public).key for s in settings.sender}
    store_key = Path(settings.store_key) if settings.store_key else None
    return Receiver(settings.store, identity, senders, clock, store_key)


def open_sink(settings: SinkSettings, receiver: Receiver) -> FileSink:
    """The sink, what a crash left of it put right, and told of revocations. Raises OSError."""
    sink = FileSink(settings.directory, receiver.hand_out, SystemRandomness(), settings.keys_per_container)
    sink.recover()
    receiver.on_revoked = sink.revoked
    return sink
