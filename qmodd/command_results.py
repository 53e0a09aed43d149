"""What commands answer with: what *is* afterwards. More may stand in an answer than is named here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from qmodd.messages import Alarm, Approval, Inhibited, StateField


class Result(BaseModel):
    """Base of all: newer modules may tell more."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class StateNow(Result):
    """The three fields of `state`, and every output that is held off."""

    administrative: StateField
    operational: StateField
    activity: StateField
    inhibited: list[Inhibited]


class Calibrated(StateNow):
    asked: list[str] = Field(description="names that are redone")
    made: dict[str, int] = Field({}, description="with `wait`: new versions by name")
    failed: dict[str, str] = Field({}, description="with `wait`: reasons by name")
    open: list[str] = Field([], description="with `wait`: neither yet")


class Tested(StateNow):
    asked: str = Field("", description="the level, without `wait`")
    at: Literal["", "once", "next start"] = Field("", description="when it runs, without `wait`")
    level: str = Field("", description="the level that ran, with `wait`")
    passed: bool | None = Field(None, description="with `wait`")
    verdict: str = Field("", description="the result in a sentence, with `wait`")
    suspects: list[str] = Field([], description="parts to blame, the most likely first, with `wait`")
    seconds: float | None = Field(None, description="from begin to end, with `wait`")


class Monitors(Result):
    utc: AwareDatetime = Field(description="of the moment")
    span_s: float = Field(description="from the first to the last reading of it")
    serving: bool = Field(description="the module was in service then")
    monitors: list[dict[str, JsonValue]] = Field(description="name, value, unit, limits, flags, latched, unread")


class OneRecord(Result):
    name: str
    version: int
    value: dict[str, JsonValue] = Field(description="numbers by name, unit in the name")
    units: dict[str, str]
    sigma: dict[str, float] = Field(description="standard uncertainties")
    active: bool = Field(description="it is the one in force")


class RolledBack(StateNow):
    calibration: str
    version: int = Field(description="now in force; 0: none")


class Cleared(StateNow):
    cleared: str = Field(description="the latch")
    was: str = Field(description="its reason")


class Alarms(Result):
    alarms: list[Alarm] = Field(description="active ones")
    maintenance_s: float = Field(description="left of the maintenance window; 0: none")


class Leased(Result):
    leases: list[dict[str, JsonValue]] = Field(description="of this client: output, unit, value, limits, until when")


class GivenBack(BaseModel):
    output: str
    owner: str = Field(description="who drives it now")
    value: float = Field(description="where it is, in its unit")


class Released(Result):
    released: list[GivenBack]


class Column(BaseModel):
    name: str
    unit: str


class Swept(Result):
    columns: list[Column]
    rows: list[list[Annotated[float, Field(description="in the column's unit")]]]
    value: float = Field(description="of the output afterwards")


class Locating(Result):
    controller: str = Field(description="serial number")
    assembly: str = Field(description="serial number of the photonic module")
    blinks_s: float


class Fru(Result):
    controller: str = Field(description="serial number")
    module: str = Field(description="serial number of the photonic module")
    factory_record: str = Field(description="where it came from: `eeprom` or `file`")
    known: list[Any] = Field(description="photonic modules that have been in")
    out: bool = Field(description="none is in now")


class InForce(Result):
    """The setting as on `settings/<path>`."""

    path: str
    value: JsonValue = Field(description="in force now")
    changed: bool = Field(description="this request has changed something")


class Waiting(Result):
    done: bool = Field(description="false: it waits for a second person")
    approval: Approval | None = Field(None, description="what waits, as on `approval/<id>`")


class Approved(Result):
    done: bool = Field(description="true")
    command: str = Field(description="what was done; its result stands beside it")


class Approvals(Result):
    approvals: list[Approval] = Field(description="what waits")


class Revoked(Result):
    asked: int = Field(description="keys that were named")
    revoked: int = Field(description="of them, those that were not before")
    key_ids: list[str] = Field(description="the first 64")


class KeyCounts(Result):
    created: int = Field(description="keys ever made, the sum over all states")
    states: dict[str, int] = Field(description="keys by state")
    recipients: dict[str, dict[str, JsonValue]] = Field(description="by recipient: keys by state, share, depth")
    batches_open: int = Field(description="sealed batches without a recipient's word")
    notices_open: int = Field(description="notices without a recipient's word")
    account: str = Field(description="`in order`, or what does not add up")


class Provenance(Result):
    key_id: str
    state: str
    recipient: str
    block: dict[str, JsonValue] | None = Field(None, description="record of the block that it comes from")
    times: dict[str, str | None] = Field(description="created, delivered, acknowledged, usable, ended")
