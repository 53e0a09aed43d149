"""The commands `acknowledge`, `shelve` and `maintenance`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qmodd.app.alarm_desk import AlarmDesk
from qmodd.app.wiring import Wiring
from qmodd.requests import Arguments, Handler, Refusal, requesting

# Longer than this nobody remembers what was silenced.
MOST_S = 7 * 86_400.0


def alarm_handlers(wiring: Wiring) -> Mapping[str, Handler]:
    """By command name."""
    commands = AlarmCommands(wiring)
    return {
        "acknowledge": commands.acknowledge,
        "shelve": commands.shelve,
        "maintenance": commands.maintenance,
    }


class AlarmCommands:
    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    @property
    def _desk(self) -> AlarmDesk:
        return self._wiring.alarms

    async def acknowledge(self, arguments: Arguments) -> dict[str, Any]:
        """A person has seen the alarm and takes care of it."""
        _known(arguments, "alarm")
        try:
            self._desk.acknowledge(_word(arguments, "alarm"), _client())
        except LookupError as e:
            raise Refusal("wrong_state", str(e.args[0])) from None
        return self._alarms()

    async def shelve(self, arguments: Arguments) -> dict[str, Any]:
        """Not counted as an alarm for so long, raised or not."""
        _known(arguments, "alarm", "seconds")
        seconds = _seconds(arguments, least_s=1.0)
        try:
            self._desk.shelve(_word(arguments, "alarm"), _client(), seconds)
        except LookupError as e:
            raise Refusal("bad_arguments", str(e.args[0])) from None
        return self._alarms()

    async def maintenance(self, arguments: Arguments) -> dict[str, Any]:
        """For so long no new alarm is raised; 0 ends it. What still lasts then is raised."""
        _known(arguments, "seconds", "why")
        why = _word(arguments, "why") if arguments.get("why", "") != "" else ""
        self._desk.maintenance(_client(), _seconds(arguments, least_s=0.0), why)
        return self._alarms()

    def _alarms(self) -> dict[str, Any]:
        return {
            "alarms": [alarm.model_dump(mode="json") for alarm in self._desk.active()],
            "maintenance_s": round(self._desk.maintenance_left_s, 3),
        }


def _known(arguments: Arguments, *allowed: str) -> None:
    if unknown := sorted(set(arguments) - set(allowed)):
        raise Refusal("bad_arguments", f"unknown argument {unknown[0]!r}; allowed: {', '.join(allowed)}")


def _word(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise Refusal("bad_arguments", f"{name} must be a text of 1 to 200 characters")
    return value


def _seconds(arguments: Arguments, least_s: float) -> float:
    value = arguments.get("seconds")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refusal("bad_arguments", f"seconds = {value!r}: a number is wanted")
    if not least_s <= value <= MOST_S:
        raise Refusal("bad_arguments", f"seconds = {value:g}: {least_s:g} to {MOST_S:g} is allowed")
    return float(value)


def _client() -> str:
    client = requesting()
    return client.name if client else "local"
