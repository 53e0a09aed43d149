"""What every command takes and answers: one model a command. Core checks arguments against it before a handler runs;
schemas and reference pages are made from the same models.

The docstring says what the command does; a field says its meaning, its limits and, under `unit`, its unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from qmodd import command_results as results
from qmodd.messages import UuidText

WEEK_S = 7 * 86_400.0

Text = Annotated[str, Field(min_length=1, max_length=200)]
Time = Annotated[str, Field(max_length=40, pattern=r"^\d{4}-\d{2}-\d{2}T", description="ISO 8601 with zone")]
Output = Annotated[str, Field(min_length=1, max_length=64)]
SECONDS: dict[str, Any] = {"unit": "s"}


class Arguments(BaseModel):
    """Base of all: strict, no unknown argument."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Start(Arguments):
    """Ask for keys; leaves a commanded safe state."""


class Stop(Arguments):
    """No more keys; light, locks, temperature stay."""


class Safe(Arguments):
    """Every output to its safe value, until `start`."""


class Lock(Arguments):
    """Dark, over restarts too, until `unlock`."""

    why: Text = Field("locked by command", description="for the state and the event log")


class Unlock(Arguments):
    """Outputs may come on again."""

    why: Text = Field("unlocked by command", description="for the state and the event log")


class Calibrate(Arguments):
    """Redo calibrations. In service it is done by upkeep, without going dark."""

    target: Text = Field("all", description="a calibration's name, or `all`")
    force: bool = Field(True, description="redo it whatever its state; false: only what is out")
    wait: bool = Field(False, description="answer when all are made or have failed, with progress until then")


class Selftest(Arguments):
    """Test the module: keys stop, outputs go back, keys come again; a failure leaves it dark."""

    level: Literal["power-on", "light-off", "light-on", "production"] = Field(
        "light-off", description="this level and those before it"
    )
    wait: bool = Field(False, description="answer when the test is over, with progress until then")
    force: bool = Field(False, description="also `production`, which takes hours of service")


class Monitors(Arguments):
    """Every monitor of one moment with alarm and warning limits, flags, latched flags and where the limits come
    from."""

    freeze: bool = Field(True, description="of now; false: of the last moment")
    clear: bool = Field(False, description="forget the latched flags once they are told; not for a viewer")


class OneRecord(Arguments):
    """One whole record of a calibration."""

    calibration: Text = Field(description="its name")
    version: int | None = Field(None, ge=1, description="default: the active one")


class Rollback(Arguments):
    """Back to the record before the active one; what rests on it is redone."""

    calibration: Text = Field(description="its name")


class ClearLatch(Arguments):
    """Let a part that gave up try again, or a module that went dark come back. The hardware is read again: refused
    while the cause persists."""

    latch: Text = Field(description="its name, such as `phase`; `latches` of the state lists what is set")


class Acknowledge(Arguments):
    """Somebody has seen the alarm and takes care of it."""

    alarm: Text = Field(description="its id")


class Shelve(Arguments):
    """Not counted as an alarm for so long, raised or not."""

    alarm: Text = Field(description="its id")
    seconds: float = Field(ge=1.0, le=WEEK_S, description="how long", json_schema_extra=SECONDS)


class Maintenance(Arguments):
    """Nothing new is raised for so long; what lasts longer is raised then."""

    seconds: float = Field(ge=0.0, le=WEEK_S, description="how long; 0 ends it", json_schema_extra=SECONDS)
    why: str = Field("", max_length=200, description="for the event log")


class Lease(Arguments):
    """Borrow an output, or renew the lease. Keys stop first where they rest on it."""

    output: Output = Field(description="its name, or an instrument's for all of its outputs")
    seconds: float = Field(600.0, ge=1.0, le=3600.0, description="how long", json_schema_extra=SECONDS)
    heartbeat_s: float = Field(
        30.0, ge=2.0, le=120.0, description="it ends when it is not renewed for so long", json_schema_extra=SECONDS
    )


class Release(Arguments):
    """Give an output back: it returns to where it was, and its loop takes over."""

    output: Output = Field(description="as in `lease`")


class Sweep(Arguments):
    """Move a leased output and read beside each step, raw."""

    output: Output = Field(description="one that this client has leased")
    from_: float = Field(alias="from", description="first value, in the output's unit")
    to: float = Field(description="last value, in the output's unit")
    points: int = Field(ge=1, le=1000, description="how many values, both ends included")
    settle: float = Field(0.05, ge=0.0, le=10.0, description="wait after each write", json_schema_extra=SECONDS)
    read: list[str] = Field([], max_length=1000, description="names of readings")
    stay: bool = Field(False, description="stay at the last value; false: back to where it was")


class Locate(Arguments):
    """Blink the locate LED."""

    seconds: float = Field(60.0, ge=0.0, le=3600.0, description="how long; 0 ends it", json_schema_extra=SECONDS)


class Fru(Arguments):
    """Which photonic module is in: serial, FRU, factory record; modules that have been in."""


class SetArguments(Arguments):
    """Change a setting: exactly one of the two arguments. A value that is not allowed leaves no trace."""

    value: JsonValue = Field(None, description="asked for, in the setting's unit")
    file: bool = Field(False, description="true: back to the value of the configuration file")


class Undo(Arguments):
    """A setting back to what was in force before its last change."""

    setting: Text = Field(description="its path, such as `keys.lifetime_s`")


class Revoke(Arguments):
    """Keys that must not be used (any more), at both sites and both recipients. Exactly one of `key_ids`, `block`,
    `all_before` says which."""

    key_ids: list[UuidText] | None = Field(None, min_length=1, max_length=800, description="these")
    block: UuidText | None = Field(None, description="all keys of one block")
    all_before: Time | None = Field(None, description="all keys created before this time")
    why: Text = Field("by command", description="for the event log and the recipients")


class Purge(Arguments):
    """Remove from the module's store what is left of keys whose lifetime ended before a time."""

    before: Time = Field(description="not later than now")


class Rekey(Arguments):
    """Begin anew with a pre-shared key that was brought to both modules by hand."""

    abandon: bool = Field(False, description="true: give up one that was approved and is not in force yet")


class Zeroise(Arguments):
    """Destroy every key and secret of the module; it stays dark after that."""

    why: Text = Field(description="for the latch, the alarm and the event log")


class Approve(Arguments):
    """What another client of the role has asked for is done now."""

    approval: Text = Field(description="its id, as on `approval/<id>`")


class Reject(Arguments):
    """What was asked for is not done."""

    approval: Text = Field(description="its id, as on `approval/<id>`")
    why: Text = Field("by command", description="for the event log")


class Approvals(Arguments):
    """What waits for a second person."""


class Keys(Arguments):
    """Counts of keys by state and recipient, what is open, and whether the account adds up."""


class OneKey(Arguments):
    """Where a key comes from and what became of it: block, batch, recipient, times. Never the key."""

    key_id: UuidText = Field(description="its id")


@dataclass(frozen=True)
class Command:
    """One command. `errors`: refusal codes of its own, beside those that any request may meet; `progress`: it tells how
    far it is; `approval`: two people are needed. What it does is its model's docstring."""

    arguments: type[Arguments]
    result: type[results.Result]
    errors: tuple[str, ...] = ()
    progress: bool = False
    approval: bool = False

    @property
    def does(self) -> str:
        return " ".join((self.arguments.__doc__ or "").split())


SET_ERRORS = ("unknown_setting", "file_only", "conflict", "wrong_state", "not_stored")
_ALARMS, _STATE = results.Alarms, results.StateNow

COMMANDS: dict[str, Command] = {
    "start": Command(Start, _STATE, ("wrong_state",)),
    "stop": Command(Stop, _STATE),
    "safe": Command(Safe, _STATE),
    "lock": Command(Lock, _STATE),
    "unlock": Command(Unlock, _STATE),
    "calibrate": Command(Calibrate, results.Calibrated, ("wrong_state",), progress=True),
    "selftest": Command(Selftest, results.Tested, ("wrong_state", "busy", "device"), progress=True),
    "monitors": Command(Monitors, results.Monitors, ("wrong_state", "busy", "not_allowed")),
    "record": Command(OneRecord, results.OneRecord),
    "rollback": Command(Rollback, results.RolledBack, ("wrong_state",)),
    "clear-latch": Command(ClearLatch, results.Cleared, ("wrong_state", "device")),
    "acknowledge": Command(Acknowledge, _ALARMS, ("wrong_state",)),
    "shelve": Command(Shelve, _ALARMS),
    "maintenance": Command(Maintenance, _ALARMS),
    "lease": Command(Lease, results.Leased, ("wrong_state", "leased"), progress=True),
    "release": Command(Release, results.Released, ("not_leased", "device"), progress=True),
    "sweep": Command(Sweep, results.Swept, ("not_leased", "wrong_state", "device"), progress=True),
    "locate": Command(Locate, results.Locating),
    "fru": Command(Fru, results.Fru, ("wrong_state",)),
    "revoke": Command(Revoke, results.Revoked, ("wrong_state",), progress=True),
    "purge": Command(Purge, results.Waiting, ("wrong_state", "busy"), approval=True),
    "rekey": Command(Rekey, results.Waiting, ("wrong_state", "busy"), approval=True),
    "zeroise": Command(Zeroise, results.Waiting, ("wrong_state", "busy"), approval=True),
    "approve": Command(Approve, results.Approved, ("wrong_state", "not_allowed"), progress=True),
    "reject": Command(Reject, results.Approvals, ("wrong_state",)),
    "approvals": Command(Approvals, results.Approvals),
    "keys": Command(Keys, results.KeyCounts, ("wrong_state",)),
    "provenance": Command(OneKey, results.Provenance, ("wrong_state", "not_found")),
    "undo": Command(Undo, results.InForce, (*SET_ERRORS, "not_allowed")),
}
SET = Command(SetArguments, results.InForce, SET_ERRORS)
