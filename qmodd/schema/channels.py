"""Every topic below `qmodd/v1/<module>/`: who writes it, how, and with which messages. Documents and pages are made
from this table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Writer = Literal["module", "NOC", "recipient"]
Retained = Literal["yes", "no", "never", "while active"]

# No model of `qmodd.messages` stands behind these two.
KEY_BATCH, TELEMETRY = "KeyBatch", "Telemetry"


@dataclass(frozen=True)
class Channel:
    """`topic` with its parameters as `<name>`; `messages` by the models' names; `what` in a few words of Markdown."""

    topic: str
    writer: Writer
    messages: tuple[str, ...]
    what: str
    retained: Retained = "no"
    qos: int = 1

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(re.findall(r"<([a-z]+)>", self.topic))

    @property
    def name(self) -> str:
        """For programs: `keys/<recipient>/ack` is `keys-recipient-ack`."""
        return re.sub(r"[<>]", "", self.topic).replace("/", "-")


PARAMETERS = {
    "module": "serial number of the module's controller",
    "group": "group of numbers",
    "name": "of the calibration",
    "id": "kind of the alarm, or number of the approval",
    "client": "name in the client's certificate",
    "recipient": "name of the key-management system in the module's configuration",
    "path": "of the setting, as in the configuration: `keys.lifetime_s`",
    "page": "number of the page, from 1",
}

GROUPS = {
    "keys": "counts of keys by state, rates, error rates",
    "link": "sifting and the clock of the link",
    "bus": "transactions and errors of each bus",
    "loops": "lateness of each control loop",
    "monitors": "values of the last frozen moment",
    "thermal": "the temperature controller",
    "optics": "the transmitter's light",
    "phase": "the receiver's phase lock",
    "alarms": "counts of alarms",
    "detectors": "clicks of each detector and what became of them",
    "host": "the controller itself: processor, memory, disk, clock",
    "kpi": "key figures of the last 24 hours",
    "uplink": "the connection to the broker, and what was too much for it",
    "progress": "of the calibration or the self-test level that runs",
}

CHANNELS = (
    Channel("alive", "module", ("Alive",), "online, or offline by its will; with the epoch", "yes"),
    Channel("state", "module", ("State",), "life-cycle state with reasons, outputs held off, latches", "yes"),
    Channel("schema", "module", ("SchemaIndex",), "what the MQTT face is: digest and number of pages", "yes"),
    Channel("schema/<page>", "module", (), "a piece of the AsyncAPI document, in order", "yes"),
    Channel("telemetry/<group>", "module", (TELEMETRY,), "flat object `{t, seq, <name_unit>: number}`", "no", 0),
    Channel("kpi", "module", ("Kpi",), "key figures in bins of 15 minutes and 24 hours", "yes"),
    Channel("calibration/<name>", "module", ("CalibrationRecord",), "the record in force", "yes"),
    Channel("assembly", "module", ("AssemblyReport",), "serial, FRU and factory record of the photonic module", "yes"),
    Channel("selftest", "module", ("SelftestReport",), "the last report", "yes"),
    Channel(
        "alarm/<id>",
        "module",
        ("Alarm",),
        "empty when it is cleared or a root speaks for it ([runbook](../runbook/README.md))",
        "while active",
    ),
    Channel("event", "module", ("Event",), "one entry of the event log, in order"),
    Channel(
        "approval/<id>", "module", ("Approval",), "what waits for a second person; empty afterwards", "while active"
    ),
    Channel("settings/<path>", "module", ("Setting",), "what is in force", "yes"),
    Channel("set/<path>", "NOC", ("Request",), "asked-for value; answered on `reply/<client>`", "never"),
    Channel("command/<name>", "NOC", ("Request",), "see [commands](#commands)", "never"),
    Channel("reply/<client>", "module", ("Progress", "Reply"), "answers, and nowhere else; the reply comes last"),
    Channel(
        "keys/<recipient>",
        "module",
        (KEY_BATCH,),
        "sealed key batch `qmodd-kd-v1` ([security](../explanation/security.md))",
        "never",
    ),
    Channel("keys/<recipient>/usable", "module", ("KeyNotice",), "both sites have them", "never"),
    Channel("keys/<recipient>/revoke", "module", ("KeyNotice",), "never to be used (again)", "never"),
    Channel(
        "keys/<recipient>/ack", "recipient", ("KeyAck", "KeyNoticeAck"), "signed result per key, or per key of a notice"
    ),
)
BY_TOPIC = {c.topic: c for c in CHANNELS}
