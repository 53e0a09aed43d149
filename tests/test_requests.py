"""Signed requests: what is carried out, and what is refused without effect."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.errors import BusFault, OutOfRange
from qmodd.identity import REQUEST_CONTEXT, sign_request
from qmodd.messages import Limit, Progress, Reply, Request, Role
from qmodd.requests import REPLAY_IDS, Refusal, Replays, Requests, report_progress
from tests.uplink_fakes import CLIENT, EPOCH, MODULE, START, TRUST, HandClock, Log, body, certificate, request

TOPIC = f"qmodd/v1/{MODULE}/command/stop"


@dataclass
class In:
    payload: bytes
    topic: str = TOPIC
    retained: bool = False
    duplicate: bool = False
    expired: bool = False
    response_topic: str | None = None


class Bench:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.done: list[dict[str, Any]] = []
        self.answers: list[tuple[str, bytes]] = []
        self.audit = Log()
        self.fail: Exception | None = None
        handlers = dict.fromkeys(("stop", "safe", "calibrate", "rollback", "purge", "set/x/y"), self.act)
        self.requests = Requests(MODULE, EPOCH, self.clock, TRUST, handlers, self.audit)

    async def act(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if self.fail is not None:
            raise self.fail
        report_progress(0.5, "half")
        self.done.append(dict(arguments))
        return {"activity": "safe"}

    async def send(self, inbound: In) -> Reply | None:
        await self.requests.handle(inbound, lambda client, payload: self.answers.append((client, payload)))
        if not self.answers:
            return None
        assert self.answers[-1][0] == "ann"
        return Reply.model_validate_json(self.answers[-1][1])

    async def refused(self, inbound: In) -> str:
        """The code of the refusal, which is audited and had no effect."""
        reply = await self.send(inbound)
        assert self.done == []
        assert self.audit.names == ["request.refused"]
        fields = self.audit.entries[0][1]
        assert isinstance(fields, dict)
        if reply is not None:
            assert reply.error is not None
            assert (reply.ok, reply.error.code) == (False, fields["code"])
        return str(fields["code"])


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_good_request_is_carried_out_and_answered(bench: Bench) -> None:
    reply = await bench.send(In(request(arguments={"force": True}).payload()))
    assert reply is not None
    assert (reply.ok, reply.result) == (True, {"activity": "safe"})
    assert bench.done == [{"force": True}]
    assert bench.audit.names == ["request.accepted"]
    progress = Progress.model_validate_json(bench.answers[0][1])
    assert (progress.id, progress.progress, progress.text) == (reply.id, 0.5, "half")


async def test_progress_outside_a_request_goes_nowhere() -> None:
    report_progress(0.1)


@pytest.mark.parametrize("flag", ["retained", "duplicate", "expired"])
async def test_what_mqtt_says_against_it_refuses(bench: Bench, flag: str) -> None:
    inbound = In(request().payload())
    setattr(inbound, flag, True)
    assert await bench.refused(inbound) == flag
    assert bench.answers == []  # not even who sent it is known yet


async def test_too_large_and_malformed_are_refused(bench: Bench) -> None:
    assert await bench.refused(In(bytes(65_537))) == "too_large"


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b"\xff", b'{"body":"","signature":""}', b"[" * 60_000])
async def test_malformed_is_refused(bench: Bench, payload: bytes) -> None:
    assert await bench.refused(In(payload)) == "malformed"


async def test_a_signed_body_of_unknown_form_is_refused_without_answer(bench: Bench) -> None:
    good = request()
    raw = '{"module": "other"}'
    signature = base64.b64encode(CLIENT.key.sign(raw.encode(), REQUEST_CONTEXT)).decode()
    bad = Request(body=raw, certificate=good.certificate, signature=signature)
    assert await bench.refused(In(bad.payload())) == "malformed"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"module": "QM-B-0001"}, "wrong_module"),
        ({"topic": f"qmodd/v1/{MODULE}/command/start"}, "wrong_topic"),
        ({"client": "bob"}, "wrong_client"),
        ({"epoch": "f" * 16}, "wrong_epoch"),
        ({"expires_at": START}, "bad_window"),
        ({"expires_at": START + timedelta(minutes=11)}, "bad_window"),
        ({"issued_at": START + timedelta(minutes=2), "expires_at": START + timedelta(minutes=3)}, "not_yet"),
        ({"issued_at": START - timedelta(minutes=2), "expires_at": START - timedelta(minutes=1)}, "expired"),
    ],
)
async def test_a_body_that_is_not_for_here_and_now_is_refused(bench: Bench, changes: dict[str, Any], code: str) -> None:
    assert await bench.refused(In(request(**changes).payload())) == code
    assert len(bench.answers) == 1


async def test_without_a_good_clock_epoch_and_id_stand_alone(bench: Bench) -> None:
    bench.clock.synchronised = False
    bench.clock.t = 3600.0
    payload = request().payload()
    reply = await bench.send(In(payload))
    assert reply is not None
    assert reply.ok
    again = await bench.send(In(payload))
    assert again is not None
    assert again.error is not None
    assert again.error.code == "duplicate"
    assert len(bench.done) == 1


async def test_answers_go_to_the_client_s_own_topic_only(bench: Bench) -> None:
    inbound = In(request().payload(), response_topic=f"qmodd/v1/{MODULE}/reply/eve")
    assert await bench.refused(inbound) == "wrong_response_topic"
    own = Bench()
    reply = await own.send(In(request().payload(), response_topic=f"qmodd/v1/{MODULE}/reply/ann"))
    assert reply is not None
    assert reply.ok


@pytest.mark.parametrize(
    ("role", "command", "allowed"),
    [
        ("viewer", "stop", False),
        ("viewer", "safe", False),
        ("security", "safe", True),
        ("security", "stop", False),
        ("operator", "rollback", False),
        ("maintainer", "rollback", True),
        ("operator", "purge", False),
        ("security", "purge", True),
        ("operator", "calibrate", True),
    ],
)
async def test_roles(bench: Bench, role: Role, command: str, allowed: bool) -> None:
    payload = sign_request(CLIENT, certificate(role), body(command)).payload()
    reply = await bench.send(In(payload, topic=f"qmodd/v1/{MODULE}/command/{command}"))
    assert reply is not None
    assert reply.ok is allowed
    if reply.error is not None:
        assert reply.error.code == "not_allowed"


async def test_an_unknown_command_and_a_setting(bench: Bench) -> None:
    topic = f"qmodd/v1/{MODULE}/set/x/y"
    reply = await bench.send(In(request(topic=topic).payload(), topic=topic))
    assert reply is not None
    assert reply.ok
    other = Bench()
    assert (
        await other.refused(In(request("explode").payload(), topic=TOPIC.replace("stop", "explode")))
        == "unknown_command"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refusal("wrong_state", "locked", Limit(output="laser", value=1.0, unit="mW")), "wrong_state"),
        (OutOfRange("laser power 20 dBm over 14 dBm"), "out_of_range"),
        (BusFault("spi:0.0 does not answer"), "device"),
        (ValueError("target must be a name"), "bad_arguments"),
    ],
)
async def test_a_handler_s_refusal_is_answered_with_its_reason(bench: Bench, error: Exception, code: str) -> None:
    bench.fail = error
    reply = await bench.send(In(request().payload()))
    assert reply is not None
    assert reply.error is not None
    assert (reply.error.code, reply.error.message) == (code, str(error))
    assert bench.audit.names == ["request.accepted", "request.failed"]


async def test_a_handler_s_bug_reaches_the_supervisor(bench: Bench) -> None:
    bench.fail = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await bench.send(In(request().payload()))


async def test_an_answer_that_is_too_large_says_so(bench: Bench) -> None:
    async def chatty(_: Mapping[str, Any]) -> dict[str, Any]:
        return {"text": "x" * 300_000}

    bench.requests.handlers = {"stop": chatty}
    reply = await bench.send(In(request().payload()))
    assert reply is not None
    assert reply.error is not None
    assert reply.error.code == "too_large"


def test_ids_are_forgotten_when_their_time_is_over_by_a_good_clock_only() -> None:
    replays = Replays()
    for n in range(REPLAY_IDS):
        replays.ids[str(n)] = START
    with pytest.raises(Refusal, match="remembered"):
        replays.accept("new", START, None)
    replays.accept("new", START, START + timedelta(minutes=5))
    assert list(replays.ids) == ["new"]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
async def test_no_change_of_a_signed_request_is_carried_out(data: st.DataObject) -> None:
    bench = Bench()
    good = json.loads(request().payload())
    where = data.draw(st.sampled_from(["body", "signature", "certificate.body", "certificate.signature"]))
    holder = good["certificate"] if "." in where else good
    name = where.split(".")[-1]
    at = data.draw(st.integers(0, len(holder[name]) - 1))
    new = data.draw(st.characters(codec="ascii").filter(lambda c: c != holder[name][at]))
    holder[name] = holder[name][:at] + new + holder[name][at + 1 :]
    # Of base64's last character before the padding some bits mean nothing; Python's decoder ignores them.
    if "signature" in where and at >= len(holder[name]) - 4:
        return
    await bench.send(In(json.dumps(good).encode()))
    assert bench.done == []
    assert bench.answers == []
