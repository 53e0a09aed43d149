"""What a pair really publishes and answers, against the document: every topic is in it and every payload fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qmodd.command_models import COMMANDS, SET
from qmodd.demo.compose import SERIALS
from qmodd.identity import ClientFiles
from qmodd.provision import SITE
from qmodd.schema import asyncapi
from qmodd.soak import Run
from tests.app.pair import Noc, simulate, until, until_blocks, until_keying
from tests.schema.reader import Reader

READER = Reader(json.loads(asyncapi.encoded()))
LONG_AGO = "2020-01-01T00:00:00Z"
ONE_KEY = "<a key that was made>"
WAITING = "<what waits for a second person>"
# Asked of the transmitter while the pair makes keys, in this order: every command, by somebody who may.
ASKED: list[tuple[str, str, dict[str, Any]]] = [
    ("operator", "fru", {}),
    ("operator", "monitors", {}),
    ("operator", "record", {"calibration": "heater_iv"}),
    ("operator", "maintenance", {"seconds": 1, "why": "a test"}),
    ("operator", "shelve", {"alarm": "no-light", "seconds": 5}),
    ("operator", "locate", {"seconds": 1}),
    ("operator", "keys", {}),
    ("operator", "provenance", {"key_id": ONE_KEY}),
    ("operator", "set/uplink.telemetry_period_s", {"value": 20.0}),
    ("operator", "undo", {"setting": "uplink.telemetry_period_s"}),
    ("security-1", "revoke", {"all_before": LONG_AGO}),
    ("security-1", "purge", {"before": LONG_AGO}),
    ("security-2", "approve", {"approval": WAITING}),
    ("security-1", "zeroise", {"why": "a test"}),
    ("operator", "approvals", {}),
    ("security-2", "reject", {"approval": WAITING}),
    ("security-1", "rekey", {}),
    ("operator", "stop", {}),
    ("operator", "start", {}),
    ("maintainer", "lease", {"output": "heater.filter", "seconds": 60.0}),
    ("maintainer", "sweep", {"output": "heater.filter", "from": 0.0, "to": 0.01, "points": 3}),
    ("maintainer", "release", {"output": "heater.filter"}),
    ("operator", "calibrate", {"force": False, "wait": True}),
    ("operator", "selftest", {"level": "light-off", "wait": True}),
    ("operator", "lock", {"why": "a test"}),
    ("operator", "unlock", {}),
    ("operator", "safe", {}),
    ("operator", "acknowledge", {"alarm": "no-such"}),
    ("maintainer", "rollback", {"calibration": "heater_iv"}),
    ("maintainer", "clear-latch", {"latch": "no-such"}),
]
# For these there is nothing to do, and they say so.
REFUSED = {"rekey", "acknowledge", "rollback", "clear-latch"}
WANT_KEYS = ("lease", "calibrate", "selftest")


class Day:
    """All messages of a pair that comes up, makes keys and is asked for things; answers by command."""

    def __init__(self, directory: Path) -> None:
        self.messages: list[tuple[str, str, bytes]] = []
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self._last: dict[str, list[dict[str, Any]]] = {}
        simulate(directory, self._script).close()

    def _published(self, module: str, suffix: str, payload: bytes) -> None:
        self.messages.append((module, suffix, payload))
        if suffix.startswith("reply/"):
            answer = json.loads(payload)
            self._last.setdefault(answer["id"], []).append(answer)

    async def _script(self, run: Run) -> None:
        run.published = self._published
        await until_blocks(run, 1)
        for client, command, arguments in ASKED:
            if command in WANT_KEYS:
                await until_keying(run)
            self.answers[command] = await self._ask(run, client, command, self._filled(run, arguments))

    async def _ask(self, run: Run, client: str, command: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        noc = Noc(run)
        noc.files = ClientFiles.load(run.directory / SITE / client)
        topic = f"qmodd/v1/{SERIALS['alice']}/{command if '/' in command else f'command/{command}'}"
        body = noc.body("alice", command, arguments, topic=topic, client=client)
        noc.send("alice", topic, noc.signed(body))
        answers = self._last.setdefault(body.id, [])
        await until(run, lambda: bool(answers) and "ok" in answers[-1], 400.0, f"answer to {command}")
        return answers

    def _filled(self, run: Run, arguments: dict[str, Any]) -> dict[str, Any]:
        """With the id of a key, or of what waits: the newest retained `approval/<id>` that is not empty."""
        if ONE_KEY in arguments.values():
            keys = run.sites["alice"].core.store.select(created_before=run.clock.utc().timestamp())
            return {"key_id": str(keys[0])}
        if WAITING in arguments.values():
            waiting = dict.fromkeys(s for _, s, p in self.messages if s.startswith("approval/") and p)
            return {"approval": list(waiting)[-1].removeprefix("approval/")}
        return arguments


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    return Day(tmp_path_factory.mktemp("day"))


def test_every_message_is_in_the_document_and_fits(day: Day) -> None:
    for module, suffix, payload in day.messages:
        READER.check(f"qmodd/v1/{module}/{suffix}", payload)
    seen = {suffix.partition("/")[0] for _, suffix, _ in day.messages}
    assert {"state", "event", "calibration", "selftest", "assembly", "reply", "schema", "telemetry", "settings"} <= seen
    assert {"approval", "kpi"} <= seen


@pytest.mark.parametrize("command", [c for _, c, _ in ASKED])
def test_the_answer_fits_its_command(day: Day, command: str) -> None:
    *progress, reply = day.answers[command]
    setting = command.startswith("set/")
    known = SET if setting else COMMANDS[command]
    schemas = READER.replies("do-set-path" if setting else f"do-command-{command}")
    assert known.progress or not progress
    READER.validate(schemas[0], reply)
    for told in progress:
        READER.validate(schemas[1], told)
    if command in REFUSED:
        assert reply["error"]["code"] in (*known.errors, "bad_arguments"), reply
    else:
        assert reply["ok"], reply
        required = {n for n, f in known.result.model_fields.items() if f.is_required()}
        assert required <= set(reply["result"])


def test_long_work_is_told(day: Day) -> None:
    told = [m["progress"] for m in day.answers["selftest"][:-1]]
    assert len(told) >= 2
    assert told == sorted(told)


def test_a_wrong_answer_would_be_seen(day: Day) -> None:
    reply = dict(day.answers["fru"][-1])
    for spoilt in ({**reply, "result": {"controller": 5}}, {**reply, "id": "x"}, {**reply, "more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            READER.validate(READER.replies("do-command-fru")[0], spoilt)


def test_every_command_was_asked() -> None:
    assert {c for _, c, _ in ASKED if "/" not in c} == set(COMMANDS)
