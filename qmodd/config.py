"""The validated configuration of one module. A wrong file is refused before any bus is touched.

Paths in the file are relative to the file, or `credential:NAME` (`qmodd.secret_files`). Units stand in the field names.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qmodd.broker_settings import tls_fault
from qmodd.config_files import Part, located, missing_files, named_files
from qmodd.secret_files import NoCredential

Address = Annotated[
    str,
    Field(pattern=r"^(i2c:\d+:0x[0-9a-fA-F]{2}|spi:\d+\.\d+|serial:.+|visa:.+|tcp:[^:]+:\d+)$"),
]
Probability = Annotated[float, Field(gt=0.0, lt=1.0)]

# What each kind of module must have; a role is what the daemon asks for, the device is who plays it.
ROLES_BOTH = ("heaters", "biases", "adc", "rail", "submount", "platform", "tec")
# What a module may have besides: without it, what it would tell or guard is left out, and said so.
ROLES_OPTIONAL = {"alice": ("supply", "fru"), "bob": ("supply", "fru", "counter", "cryostat")}
ROLES_OF = {
    "alice": (*ROLES_BOTH, "laser", "source"),
    "bob": (*ROLES_BOTH, "tags", "detectors"),
}


class ConfigError(Exception):
    """One line a person can act on per fault: file, field, value and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModuleSection(_Section):
    serial: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,31}$")]
    role: Literal["alice", "bob"]
    state_dir: Path
    factory: Path
    unlocked: bool = True


class PairSection(_Section):
    link_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,31}$")]
    peer_serial: str
    symbol_period_ps: Annotated[float, Field(ge=2400.0, le=100_000_000.0)] = 8000.0
    pre_shared_key: Path
    key_encryption_key: Path


class DeviceSection(_Section):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    role: str
    driver: str
    address: Address
    options: dict[str, Any] = {}


class SourceSection(_Section):
    mu_signal: Annotated[float, Field(ge=0.05, le=1.0)] = 0.54
    decoy_ratio: Annotated[float, Field(ge=0.05, le=0.9)] = 1 / 3
    p_decoy: Probability = 0.50
    p_x: Probability = 0.25
    laser_frequency_hz: Annotated[float, Field(ge=191.0e12, le=197.0e12)] = 193.4145e12
    laser_power_dbm: Annotated[float, Field(ge=6.0, le=14.0)] = 13.0


class ReceiverSection(_Section):
    basis_split: Annotated[float, Field(ge=0.05, le=0.5)] = 0.26
    half_gate_ps: Annotated[float, Field(ge=50, le=400)] = 200.0
    hold_off_slots: Annotated[int, Field(ge=1, le=64)] = 6
    gate_open_ps: Annotated[int, Field(ge=0)] = 0
    gate_period_ps: Annotated[int, Field(ge=0)] = 0


class KeysSection(_Section):
    proof: Literal["rusca2018", "wiesemann2024"] = "wiesemann2024"
    eps_sec: Annotated[float, Field(ge=1e-15, le=1e-6)] = 1e-9
    eps_cor: Annotated[float, Field(ge=1e-30, le=1e-9)] = 1e-15
    n_z: Annotated[int, Field(ge=20_000, le=20_000_000)] = 983_040
    # Alice's decides. auto: efficiency as long as decoding keeps up with sifting.
    reconciliation: Literal["auto", "throughput", "efficiency"] = "auto"
    # fixed: length and acceptance test are agreed before a block, a share `fixed_margin` below what the ones before it
    # would have paid for; a block passes or gives nothing. Both modules must say the same.
    length: Literal["variable", "fixed"] = "variable"
    fixed_margin: Annotated[float, Field(ge=0.0, le=0.5)] = 0.05
    key_bits: Literal[128, 192, 256, 512] = 256
    batch_s: Annotated[float, Field(ge=0.02, le=10.0)] = 0.1
    sync_s: Annotated[float, Field(ge=0.05, le=60.0)] = 0.3
    lifetime_s: Annotated[float, Field(ge=60.0)] = 86_400.0
    # After the end of a key's lifetime; then every trace of it goes but its number.
    purge_after_s: Annotated[float, Field(ge=0.0, le=31_536_000.0)] = 604_800.0
    worker: bool = True
    # Keys above this many that wait for delivery stop distillation instead of growing the store.
    store_limit: Annotated[int, Field(ge=100)] = 1_000_000


class ControlSection(_Section):
    # Of the control loops' thread, 1 the least; 0 runs it like everything else.
    realtime_priority: Annotated[int, Field(ge=0, le=50)] = 0
    tec_target_c: Annotated[float, Field(ge=15.0, le=45.0)] = 30.0
    tec_current_limit_a: Annotated[float, Field(ge=0.1, le=3.0)] = 2.0
    tec_kp_a_per_k: Annotated[float, Field(gt=0.0, le=20.0)] = 1.9
    tec_ti_s: Annotated[float, Field(gt=0.1, le=1000.0)] = 4.4
    slow_period_s: Annotated[float, Field(ge=0.1, le=60.0)] = 1.0
    phase_period_s: Annotated[float, Field(ge=0.1, le=60.0)] = 0.25
    # The same while the transmitter sends a pilot.
    pilot_period_s: Annotated[float, Field(ge=0.02, le=60.0)] = 0.1
    # Below this the phase may count as locked; above it for longer than the dwell it may not.
    phase_limit_deg: Annotated[float, Field(gt=0.5, le=30.0)] = 8.0
    visibility_min: Annotated[float, Field(ge=0.5, le=0.999)] = 0.90
    # Upkeep of the calibrations: how often it looks, how long before its end a record is renewed, and how far apart
    # calibrations are that keys do not rest on.
    upkeep_period_s: Annotated[float, Field(ge=0.5, le=3600.0)] = 5.0
    upkeep_margin_s: Annotated[float, Field(ge=0.0, le=86_400.0)] = 120.0
    upkeep_spread_s: Annotated[float, Field(ge=1.0, le=86_400.0)] = 600.0


class SafetySection(_Section):
    watchdog_period_s: Annotated[float, Field(ge=0.02, le=0.4)] = 0.1
    check_in_s: Annotated[float, Field(ge=0.2, le=60.0)] = 0.8
    tec_ramp_c_per_s: Annotated[float, Field(gt=0.0, le=2.0)] = 0.5
    # Software interlocks: beyond these a module goes dark and stays so until a person clears the latch.
    submount_max_c: Annotated[float, Field(ge=30.0, le=100.0)] = 60.0
    object_max_c: Annotated[float, Field(ge=30.0, le=100.0)] = 60.0
    sink_max_c: Annotated[float, Field(ge=30.0, le=100.0)] = 68.0
    supply_max_c: Annotated[float, Field(ge=40.0, le=125.0)] = 85.0
    rail_max_a: Annotated[float, Field(gt=0.0, le=2.0)] = 0.18
    tec_max_a: Annotated[float, Field(gt=0.0, le=5.0)] = 2.5
    heater_budget_w: Annotated[float, Field(gt=0.0, le=5.0)] = 0.40
    # Beyond this there is no bias; the module comes back by itself once the cryostat is cold.
    cryostat_max_k: Annotated[float, Field(gt=0.0, le=20.0)] = 3.0
    # Below this the fan is reported.
    fan_min_rpm: Annotated[float, Field(ge=0.0, le=20_000.0)] = 1000.0
    # So many trips of the hardware watchdog within the time, while the daemon ran, and a person has to look.
    trips_max: Annotated[int, Field(ge=1, le=100)] = 3
    trips_within_s: Annotated[float, Field(ge=1.0, le=86_400.0)] = 600.0
    # What an opened cover means beside its interlock: nothing, a latch with light or without, or the end of all keys.
    tamper: Literal["off", "latch", "zeroise"] = "latch"
    tamper_debounce_s: Annotated[float, Field(ge=0.0, le=5.0)] = 0.3
    # So long a command that needs two persons waits for the second one.
    approval_s: Annotated[float, Field(ge=60.0, le=86_400.0)] = 900.0


class SelftestSection(_Section):
    """The production level is never run by schedule."""

    boot_level: Literal["power-on", "light-off", "light-on"] = "power-on"
    schedule_level: Literal["power-on", "light-off", "light-on"] = "light-off"
    every_h: Annotated[float, Field(ge=0.0, le=8760.0)] = 0.0
    golden: Path | None = None


class AlarmsSection(_Section):
    """When an alarm is raised; it is cleared somewhat further back."""

    temperature_k: Annotated[float, Field(ge=0.05, le=10.0)] = 0.5
    disk_share: Annotated[float, Field(ge=0.01, le=0.5)] = 0.05
    outbox_rows: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    store_share: Annotated[float, Field(ge=0.2, le=1.0)] = 0.9
    stalled_s: Annotated[float, Field(ge=5.0, le=3600.0)] = 30.0
    barren_blocks: Annotated[int, Field(ge=1, le=100)] = 3
    detector_resets: Annotated[int, Field(ge=1, le=1000)] = 3


class UplinkSection(_Section):
    broker: Annotated[str, Field(pattern=r"^mqtts?://[^/]+$")] = "mqtt://127.0.0.1:1883"
    # Of the connection to the broker (mqtts), PEM: whom to believe, and who this module is.
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    # Core's socket, on which uplink meets it; None: door.sock in module.state_dir.
    door: Path | None = None
    # The door's group may use it, where uplink is another user; false: core's user alone.
    door_shared: bool = False
    relay_listen: str | None = None
    relay_connect: str | None = None
    telemetry_period_s: Annotated[float, Field(ge=0.1, le=3600)] = 1.0
    identity: Path
    authority: Path


Label = Annotated[str, Field(min_length=1, max_length=128)]


class RecipientSection(_Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{1,31}$")]
    public: Path
    batch_keys: Annotated[int, Field(ge=1, le=1024)] = 64
    # Of the keys of every block; the same at both sites, as is the size of a key (None: keys.key_bits).
    share: Annotated[int, Field(ge=1, le=1000)] = 1
    key_bits: Literal[128, 192, 256, 512] | None = None
    # Keys that may wait for this recipient's acknowledgement at a time.
    depth: Annotated[int, Field(ge=1, le=65_536)] = 65_536
    labels: Annotated[dict[Label, Label], Field(max_length=32)] = {}


class Config(_Section):
    module: ModuleSection
    pair: PairSection
    device: list[DeviceSection]
    source: SourceSection = SourceSection()
    receiver: ReceiverSection = ReceiverSection()
    keys: KeysSection = KeysSection()
    control: ControlSection = ControlSection()
    safety: SafetySection = SafetySection()
    selftest: SelftestSection = SelftestSection()
    alarms: AlarmsSection = AlarmsSection()
    uplink: UplinkSection
    recipient: list[RecipientSection] = []

    @model_validator(mode="after")
    def _devices(self) -> Self:
        for what, values in (
            ("address", [d.address for d in self.device]),
            ("name", [d.name for d in self.device]),
            ("role", [d.role for d in self.device]),
        ):
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                names = [d.name for d in self.device if getattr(d, what) == twice[0]]
                raise ValueError(f"two devices ({', '.join(names)}) have the {what} {twice[0]!r}; it must be unique")
        wanted = ROLES_OF[self.module.role]
        missing = [r for r in wanted if r not in {d.role for d in self.device}]
        if missing:
            raise ValueError(f"no device plays the role {missing[0]!r}; {self.module.role} needs {', '.join(wanted)}")
        known = (*wanted, *ROLES_OPTIONAL[self.module.role])
        foreign = [d for d in self.device if d.role not in known]
        if foreign:
            raise ValueError(f"device {foreign[0].name!r}: role {foreign[0].role!r} is none of {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _gate(self) -> Self:
        r = self.receiver
        if (r.gate_open_ps == 0) != (r.gate_period_ps == 0) or r.gate_open_ps > r.gate_period_ps:
            raise ValueError(
                f"receiver.gate_open_ps {r.gate_open_ps} and receiver.gate_period_ps {r.gate_period_ps}: both 0 "
                "(always open) or 0 < open <= period"
            )
        return self

    @model_validator(mode="after")
    def _tls(self) -> Self:
        u = self.uplink
        if (fault := tls_fault(u.broker, u.ca, u.certificate, u.key)) is not None:
            raise ValueError(f"uplink: {fault}")
        return self

    @model_validator(mode="after")
    def _relay(self) -> Self:
        u = self.uplink
        if self.module.role == "alice" and u.relay_listen is None:
            raise ValueError("uplink.relay_listen is missing; alice listens, e.g. '127.0.0.1:7700'")
        if self.module.role == "bob" and u.relay_connect is None:
            raise ValueError("uplink.relay_connect is missing; bob connects, e.g. 'alice.example:7700'")
        return self

    def by_role(self, role: str) -> DeviceSection:
        return next(d for d in self.device if d.role == role)


def load(path: Path, part: Part = "both", *, given: bool = True) -> Config:
    """Read and validate a configuration file.

    Raises ConfigError with one line a fault. Checks that the files it names are there, too, as far as the `part` needs
    them: a module without its pre-shared key must not get as far as its lasers. `given` False: this process is not the
    service, so credentials that it has not been given are left unresolved (`config_files.left_unresolved`).
    """
    try:
        raw = tomllib.loads(path.read_text())
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e.strerror}") from None
    except tomllib.TOMLDecodeError as e:
        raise ConfigError(f"{path}: not TOML: {e}") from None
    return validate(raw, path, part, given=given)


def validate(raw: dict[str, Any], path: Path, part: Part = "both", *, given: bool = True) -> Config:
    """As `load`, for a dictionary that stands for the file `path`."""
    faults = []
    for table, name, where, mine in named_files(raw, part):
        try:
            table[name] = located(table[name], path.parent)
        except NoCredential as e:
            if mine and given:
                faults.append(f"{path}: {where} = {table[name]!r}: {e}")
    if faults:
        raise ConfigError("\n".join(faults))
    try:
        config = Config.model_validate(raw)
    except ValidationError as e:
        raise ConfigError("\n".join(_say(path, item) for item in e.errors())) from None
    if faults := missing_files(config, path, part):
        raise ConfigError("\n".join(faults))
    return config


def _say(path: Path, item: Any) -> str:
    where = ".".join(str(p) for p in item["loc"]) or "file"
    value = item.get("input")
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(value, dict | list | BaseModel) else f" = {value!r}"
    return f"{path}: {where}{shown}: {message}"
