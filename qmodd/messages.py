"""Every payload on MQTT, one model a message. Strict, bounded in size, no unknown fields.

Times are UTC, ISO 8601. The daemon builds its payloads from these models and believes nothing that does not fit them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, StringConstraints

ROOT = "qmodd/v1"
MAX_REQUEST_BYTES = 65_536
MAX_REPLY_BYTES = 262_144
MAX_KEY_ACK_BYTES = 262_144

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Serial = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,31}$")]
Epoch = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Why = Annotated[str, StringConstraints(max_length=500)]
Base64 = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]*={0,2}$", max_length=16_384)]
UuidText = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Role = Literal["viewer", "operator", "maintainer", "security"]
Number = int | float | bool


class Message(BaseModel):
    """Base of all payloads."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def payload(self) -> bytes:
        """As it goes on the wire: UTF-8 JSON."""
        return self.model_dump_json().encode()


class Alive(Message):
    """`alive`, retained; the broker's will turns it to offline. The epoch is new with every start of core."""

    state: Literal["online", "offline"]
    epoch: Epoch
    version: Annotated[str, StringConstraints(max_length=64)]
    since: AwareDatetime

    def offline(self) -> Alive:
        return self.model_copy(update={"state": "offline"})


class StateField(Message):
    value: Name
    why: Why
    since: AwareDatetime


class Inhibited(Message):
    output: Name
    why: Why


class Owner(Message):
    """Who drives an output now: a loop, a lease with its client, or nobody."""

    output: Name
    owner: Annotated[str, StringConstraints(max_length=128)]


class Latched(Message):
    """What waits for `clear-latch`. `dark`: no output comes on before; else only keys are held. `since` is empty for
    one whose file cannot be read."""

    latch: Name
    why: Why
    since: Annotated[str, StringConstraints(max_length=40)] = ""
    dark: bool = True


class State(Message):
    """`state`, retained: the three fields after ITU-T X.731, every output that is held off, each with its reason, the
    owner of every output, and every latch that is set. `assembly`: serial of the photonic module that is
    in, or was last; empty: none was seen yet."""

    administrative: StateField
    operational: StateField
    activity: StateField
    inhibited: Annotated[list[Inhibited], Field(max_length=256)] = []
    owners: Annotated[list[Owner], Field(max_length=256)] = []
    assembly: Annotated[str, StringConstraints(max_length=32)] = ""
    latches: Annotated[list[Latched], Field(max_length=64)] = []

    @classmethod
    def from_snapshot(cls, snapshot: Mapping[str, Any]) -> State:
        """From what the life cycle tells (times as ISO text). Raises pydantic.ValidationError."""
        return cls.model_validate(dict(snapshot), strict=False)


class CalibrationRecord(Message):
    """`calibration/<name>`, retained: the active record without its raw readings. `invalid` says why it may not be used
    although it is active; empty: it may. `parents` are the versions that it rests on. `valid_until` counts renewals by
    a passed check; the last was at `renewed`."""

    name: Name
    version: Annotated[int, Field(ge=0)]
    value: dict[str, JsonValue]
    units: dict[str, Annotated[str, StringConstraints(max_length=32)]] = {}
    sigma: dict[str, float] = {}
    residual: float | None = None
    temperatures_c: dict[str, float] = {}
    operator: Annotated[str, StringConstraints(max_length=128)] = "automatic"
    raw_sha256: Digest | None = None
    firmware_sha256: Digest | None = None
    invalid: Why = ""
    parents: Annotated[dict[Name, int], Field(max_length=64)] = {}
    taken: AwareDatetime
    valid_until: AwareDatetime | None = None
    renewed: AwareDatetime | None = None


Part = Annotated[str, StringConstraints(max_length=64)]


class Check(Message):
    """One value of a self-test. `low` and `high` are alarm limits, `warn_low` and `warn_high` what is usual; absent
    where there is none. `part` is what is broken when this fails and nothing that it needs does."""

    name: Name
    value: float | str | bool | None
    unit: Annotated[str, StringConstraints(max_length=32)] = ""
    low: float | None = None
    high: float | None = None
    ok: bool
    why: Why = ""
    level: Name = "power-on"
    part: Part = ""
    verdict: Literal["passed", "warned", "failed", "skipped"] = "passed"
    warn_low: float | None = None
    warn_high: float | None = None
    sigma: float = 0.0
    golden_z: float | None = None


class AssemblyReport(Message):
    """`assembly`, retained: which photonic module is in, by its EEPROM. `module` is its serial, `controller` that of
    the topics; `factory_record` says where its factory record came from (eeprom or file), `slot` where in the EEPROM it
    is; `faults`: what in the EEPROM is not in order."""

    controller: Serial
    module: Annotated[str, StringConstraints(max_length=32)]
    factory_record: Annotated[str, StringConstraints(max_length=32)]
    factory_sha256: Annotated[str, StringConstraints(max_length=64)] = ""
    faults: Annotated[list[Why], Field(max_length=16)] = []
    fru: dict[str, JsonValue] | None = None
    slot: dict[str, JsonValue] | None = None


class SelftestReport(Message):
    """`selftest`, retained: the last report. `suspects`: the parts that explain what failed, the most likely first,
    which is `part`. `left_out`: values that passed and had no room; none that failed is ever left out for it.
    `assembly`: serial of the photonic module that was tested; `firmware_sha256`: over all of its parts."""

    level: Name
    passed: bool
    taken: AwareDatetime
    checks: Annotated[list[Check], Field(max_length=1024)]
    side: Literal["alice", "bob"] = "alice"
    verdict: Why = ""
    part: Part = ""
    suspects: Annotated[list[Part], Field(max_length=64)] = []
    seconds: Annotated[float, Field(ge=0.0)] = 0.0
    level_seconds: dict[Name, float] = {}
    mahalanobis_t2: float | None = None
    left_out: Annotated[int, Field(ge=0)] = 0
    assembly: Annotated[str, StringConstraints(max_length=32)] = ""
    firmware_sha256: Annotated[str, StringConstraints(max_length=64)] = ""


class Alarm(Message):
    """`alarm/<id>`, retained while the alarm is active, empty afterwards: the fields of ITU-T X.733. `occurred` is when
    the condition began, `raised` when that became an alarm; `count` how often it came back before it was cleared."""

    id: Name
    severity: Literal["critical", "major", "minor", "warning", "indeterminate", "cleared"]
    event_type: Literal[
        "communicationsAlarm",
        "qualityOfServiceAlarm",
        "processingErrorAlarm",
        "equipmentAlarm",
        "environmentalAlarm",
    ]
    probable_cause: Name
    problem: Why
    why: Why
    occurred: AwareDatetime
    raised: AwareDatetime
    last: AwareDatetime
    acknowledged: Annotated[str, StringConstraints(max_length=128)] = ""
    acknowledged_at: AwareDatetime | None = None
    shelved_until: AwareDatetime | None = None
    latched: bool = False
    count: Annotated[int, Field(ge=1)] = 1
    runbook: Annotated[str, StringConstraints(max_length=200)]


class KpiBin(Message):
    """One span of time. Sums, so that spans can be added up, and what follows from them; what is zero, or has nothing
    to be a mean of, may be left out. Every second is one of keying, planned, down (by activity) and absent."""

    start: AwareDatetime
    keying_s: float = 0.0
    planned_s: float = 0.0
    absent_s: float = 0.0
    down_s: Annotated[dict[Name, float], Field(max_length=16)] = {}
    locked_s: float = 0.0
    lock_wanted_s: float = 0.0
    blocks: int = 0
    blocks_aborted: int = 0
    secret_bits: int = 0
    bits_z: int = 0
    errors_z: float = 0.0
    bits_x: int = 0
    errors_x: float = 0.0
    qber_z_max: float = 0.0
    qber_x_max: float = 0.0
    keys_delivered: int = 0
    keys_usable: int = 0
    age_s: float = 0.0
    latency_max_s: float = 0.0
    alarms_raised: int = 0
    detect_s: float = 0.0
    alarms_acknowledged: int = 0
    acknowledge_s: float = 0.0
    alarms_cleared: int = 0
    repair_s: float = 0.0
    availability: float | None = None
    skr_bps: float | None = None
    qber_z: float | None = None
    qber_x: float | None = None
    lock_uptime: float | None = None
    latency_mean_s: float | None = None
    mttd_s: float | None = None
    mtta_s: float | None = None
    mttr_s: float | None = None


class Kpi(Message):
    """`kpi`, retained: key performance indicators in spans of 15 minutes and of 24 hours, begun on whole UTC ones, the
    oldest first; the last of each is not over yet. `until`: what is counted ends here. `last_24h`: the newest spans of
    15 minutes that make 24 hours, as one."""

    module: Serial
    until: AwareDatetime
    last_24h: KpiBin
    bins_15min: Annotated[list[KpiBin], Field(max_length=96)] = []
    bins_24h: Annotated[list[KpiBin], Field(max_length=62)] = []


class Event(Message):
    """`event`: one entry of the event log, in order."""

    seq: Annotated[int, Field(ge=1)]
    t: AwareDatetime
    module: Serial
    event: Name
    fields: dict[Name, str | int | float | bool | None] = {}

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> Event:
        """From a flat entry of the event log. Raises pydantic.ValidationError."""
        own = {k: entry[k] for k in ("seq", "t", "module", "event")}
        rest = {k: v for k, v in entry.items() if k not in own}
        return cls.model_validate({**own, "fields": rest}, strict=False)


class SchemaIndex(Message):
    """`schema`, retained: which document describes this MQTT face. Its bytes are the pages `schema/<page>`, retained
    too, from 1 on, joined in order."""

    format: Literal["asyncapi"] = "asyncapi"
    asyncapi: Annotated[str, StringConstraints(max_length=16)]
    version: Annotated[str, StringConstraints(max_length=64)]
    sha256: Digest
    bytes: Annotated[int, Field(ge=2)]
    pages: Annotated[int, Field(ge=1, le=1000)]


SettingValue = bool | int | float | Annotated[str, StringConstraints(max_length=64)]


class Setting(Message):
    """`settings/<path>`, retained: one setting as it is in force. `low` and `high` are allowed, `above` and `below` are
    not any more; of a safety limit they are narrowed to the safe side of the file's value. `pending`: a value that was
    set and waits for what `applies` names. `before`: what `undo` returns to; null: there is nothing to undo."""

    path: Name
    value: SettingValue
    kind: Literal["number", "integer", "boolean", "choice"]
    unit: Annotated[str, StringConstraints(max_length=32)] = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: Annotated[list[SettingValue], Field(max_length=32)] = []
    default: SettingValue
    origin: Literal["file", "set"]
    applies: Literal["now", "block", "run", "session", "restart", "file"]
    roles: list[Role] = []
    safe_side: Literal["lower", "higher"] | None = None
    pending: SettingValue | None = None
    set_by: Annotated[str, StringConstraints(max_length=64)] = ""
    set_at: Annotated[str, StringConstraints(max_length=40)] = ""
    before: SettingValue | None = None
    note: Why = ""
    description: Annotated[str, StringConstraints(max_length=200)] = ""


class CertificateBody(Message):
    """What the site authority vouches for: this client, in this role, with these public keys (raw, base64)."""

    client: Name
    role: Role
    not_before: AwareDatetime
    not_after: AwareDatetime
    public: Base64
    issuer: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class Certificate(Message):
    """`body` is the raw JSON of a CertificateBody; the authority's signature is over its bytes."""

    body: Annotated[str, StringConstraints(max_length=8192)]
    signature: Base64


class RequestBody(Message):
    """What a client asks for. Topic, epoch and id tie it to one module, one life of it, and one use."""

    module: Serial
    topic: Annotated[str, StringConstraints(max_length=256)]
    epoch: Epoch
    id: UuidText
    issued_at: AwareDatetime
    expires_at: AwareDatetime
    client: Name
    arguments: dict[Name, JsonValue] = {}


class Request(Message):
    """`command/<name>`, `set/<path>`: `body` is the raw JSON of a RequestBody; the signature is over its bytes."""

    body: Annotated[str, StringConstraints(max_length=32_768)]
    certificate: Certificate
    signature: Base64


class Limit(Message):
    output: Annotated[str, StringConstraints(max_length=64)] = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: Annotated[str, StringConstraints(max_length=32)] = ""


class ReplyError(Message):
    code: Name
    message: Annotated[str, StringConstraints(max_length=2000)]
    limit: Limit | None = None


class Reply(Message):
    """`reply/<client>`: the one answer to a request."""

    id: UuidText
    ok: bool
    result: dict[str, JsonValue] | None = None
    error: ReplyError | None = None


class Progress(Message):
    """`reply/<client>`: how far long work is; the Reply with the same id ends it."""

    id: UuidText
    progress: Annotated[float, Field(ge=0.0, le=1.0)]
    text: Annotated[str, StringConstraints(max_length=200)] = ""


class Approval(Message):
    """`approval/<id>`, retained while it waits, empty afterwards: a command that one security client has asked for and
    another one has to approve until `until`. `id` is a digest of all other fields; `kid` names the key of the client
    that asked."""

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    module: Serial
    command: Name
    arguments: dict[Name, JsonValue] = {}
    by: Name
    kid: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    asked: AwareDatetime
    until: AwareDatetime
    nonce: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


KeyStatus = Literal[
    "imported",
    "wrong_recipient",
    "wrong_suite",
    "wrong_key_size",
    "expired",
    "replayed",
    "cannot_open",
    "id_conflict",
    "revoked",
]
NoticeStatus = Literal["usable", "revoked", "expired", "unknown"]


class KeyAckBody(Message):
    """Per-key result of one batch; `digest` is SHA-256 over the signed message M of the envelope."""

    recipient: Name
    recipient_kid: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    batch_uuid: UuidText
    digest: Digest
    status: Annotated[dict[UuidText, KeyStatus], Field(max_length=1024)]


class KeyAck(Message):
    """`keys/<recipient>/ack`: `body` is the raw JSON of a KeyAckBody; the recipient's signature is over its bytes."""

    body: Annotated[str, StringConstraints(max_length=MAX_KEY_ACK_BYTES)]
    signature: Base64


class KeyNoticeBody(Message):
    """What a module tells a recipient about keys that were sent to it. `usable`: both sites have acknowledged them, so
    they may be handed out; `revoke`: they must never be (again), whatever was said before."""

    module: Serial
    recipient: Name
    sender_kid: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    notice_uuid: UuidText
    kind: Literal["usable", "revoke"]
    key_ids: Annotated[list[UuidText], Field(min_length=1, max_length=1024)]
    why: Why = ""
    issued_at: AwareDatetime


class KeyNotice(Message):
    """`keys/<recipient>/usable`, `keys/<recipient>/revoke`: `body` is the raw JSON of a KeyNoticeBody; the module's
    signature is over its bytes. Sent again until it is acknowledged."""

    body: Annotated[str, StringConstraints(max_length=65_536)]
    signature: Base64


class KeyNoticeAckBody(Message):
    """Per-key result of a notice; `digest` is SHA-256 over the bytes of the notice's body."""

    recipient: Name
    recipient_kid: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    notice_uuid: UuidText
    digest: Digest
    status: Annotated[dict[UuidText, NoticeStatus], Field(max_length=1024)]


class KeyNoticeAck(Message):
    """`keys/<recipient>/ack`, for a notice: `body` is the raw JSON of a KeyNoticeAckBody; the recipient's signature is
    over its bytes."""

    body: Annotated[str, StringConstraints(max_length=MAX_KEY_ACK_BYTES)]
    signature: Base64


@dataclass(frozen=True)
class Client:
    """Who a verified certificate speaks for."""

    name: str
    role: Role
    kid: str


class Untrusted(Exception):
    """A certificate or signature that is not believed. `code` is stable for programs; the text is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def telemetry(t_unix_s: float, seq: int, values: Mapping[str, Number]) -> dict[str, Number]:
    """A group's flat object `{t, seq, <name_unit>: number}`; what is not finite is left out, as JSON has no NaN."""
    flat: dict[str, Number] = {"t": round(t_unix_s, 3), "seq": seq}
    flat.update({k: v for k, v in values.items() if math.isfinite(v)})
    return flat
