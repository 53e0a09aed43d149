"""Topic names below `qmodd/v1/<module>/` (design mqtt)."""

from __future__ import annotations

from dataclasses import dataclass

from qmodd.messages import ROOT

# What a module says to everybody who may read at all. The broker's ACL and its bridge are made of it.
PUBLIC = (
    "alive",
    "state",
    "assembly",
    "telemetry/+",
    "kpi",
    "alarm/+",
    "event",
    "checkpoint",
    "calibration/+",
    "selftest",
    "settings/+",
    "schema",
    "schema/#",
    "approval/+",
)


@dataclass(frozen=True)
class Topics:
    """Topics of one module, by its serial number."""

    module: str

    @property
    def root(self) -> str:
        return f"{ROOT}/{self.module}/"

    @property
    def alive(self) -> str:
        return self.root + "alive"

    def of(self, suffix: str) -> str:
        return self.root + suffix

    def telemetry(self, group: str) -> str:
        return f"{self.root}telemetry/{group}"

    def command(self, name: str) -> str:
        return f"{self.root}command/{name}"

    def reply(self, client: str) -> str:
        return f"{self.root}reply/{client}"

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """What uplink listens to: requests and acknowledgements of key batches."""
        return (self.root + "command/+", self.root + "set/#", self.root + "keys/+/ack")

    def acknowledging(self, topic: str) -> str | None:
        """The recipient's name if it is an acknowledgement of a key batch."""
        parts = topic.removeprefix(self.root).split("/")
        return parts[1] if len(parts) == 3 and parts[0] == "keys" and parts[2] == "ack" else None


def module_of(topic: str) -> str | None:
    """The module's serial number, None for a topic that is not ours."""
    parts = topic.split("/")
    return parts[2] if len(parts) > 3 and "/".join(parts[:2]) == ROOT else None
