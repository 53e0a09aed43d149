"""What the hostile benchmark sends, against core's requests in this process: each refused for its own reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from benchmarks import hostile, mqtt_rig
from benchmarks.hostile_requests import Attacker, Attempt, caught, fuzzed, own, wrong_typed
from qmodd.clock import SystemClock
from qmodd.crypto.suites import SigningKey
from qmodd.door_frames import Inbound
from qmodd.identity import Authority, ClientFiles, Signer, issue_certificate
from qmodd.messages import Reply, Role
from qmodd.requests import ROLES, Requests
from tests.uplink_fakes import AUTHORITY, EPOCH, MODULE, TRUST

HARMFUL = ["stop", "safe", "unlock", "set/keys.lifetime_s"]


class Good(SystemClock):
    """Real time that says of itself that it is synchronised, whatever machine the test runs on."""

    def utc_synchronised(self) -> bool:
        return True


def attacker(name: str, role: Role) -> Attacker:
    signer, now = Signer(name, SigningKey.generate()), SystemClock().utc()
    certificate = issue_certificate(
        AUTHORITY, name, signer.key.public, role, now.replace(year=2020), now.replace(year=2099)
    )
    return Attacker(ClientFiles(signer, certificate), MODULE, EPOCH)


class Core:
    """Requests with handlers that do nothing but say that they were called."""

    def __init__(self, authority: Authority = TRUST) -> None:
        self.done: list[str] = []
        self.refused: list[str] = []
        self.answers: list[Reply] = []
        handlers = {name: self._handler(name) for name in HARMFUL}
        self.requests = Requests(MODULE, EPOCH, Good(), authority, handlers, self._audit)

    def _handler(self, name: str) -> Any:
        async def handle(_arguments: Mapping[str, Any]) -> dict[str, Any]:
            self.done.append(name)
            return {}

        return handle

    def _audit(self, event: str, fields: Mapping[str, Any]) -> None:
        if event == "request.refused":
            self.refused.append(fields["code"])

    def _answer(self, _client: str, payload: bytes) -> None:
        self.answers.append(Reply.model_validate_json(payload))

    async def take(self, attempts: Iterable[Attempt]) -> list[tuple[Attempt, str]]:
        """Each attempt with the code of its refusal; empty: it was carried out."""
        out = []
        for a in attempts:
            before = len(self.refused)
            inbound = Inbound(topic=a.topic, payload=a.payload[:65_537], retained=a.retain)
            await self.requests.handle(inbound, self._answer)
            out.append((a, self.refused[-1] if len(self.refused) > before else ""))
        return out


async def test_a_viewer_s_requests_are_refused_as_they_are_meant_to_be() -> None:
    core = Core()
    for attempt, code in await core.take(own(attacker("viewer", "viewer"), HARMFUL)):
        assert code == (attempt.refusal or "expired"), attempt.kind
    assert core.done == []
    assert all(r.error is not None for r in core.answers)


async def test_caught_requests_are_refused_as_they_are_meant_to_be() -> None:
    core, operator = Core(), attacker("operator", "operator")
    used = operator.request("stop")
    assert await core.take([Attempt("good", operator.topic("stop"), used)])
    assert core.done == ["stop"]
    for attempt, code in await core.take(caught(operator, used, "stop")):
        assert code == attempt.refusal, attempt.kind
    assert core.done == ["stop"]


@pytest.mark.parametrize("seed", [1, 2])
async def test_bent_requests_have_no_effect(seed: int) -> None:
    core, viewer, operator = Core(), attacker("viewer", "viewer"), attacker("operator", "operator")
    seeds = [(a.topic(c), a.request(c)) for a in (viewer, operator) for c in HARMFUL]
    await core.take(Attempt("good", topic, request) for topic, request in seeds)
    assert core.done == HARMFUL  # the operator's; from here on each is a replay
    results = await core.take([*wrong_typed(operator, "stop"), *fuzzed(seeds, 1500, seed)])
    assert core.done == HARMFUL
    assert len(results) > 1500
    assert all(code for _, code in results)
    assert {code for _, code in results} >= {"malformed", "bad_signature"}


def test_every_command_that_a_viewer_may_not_give_is_tried() -> None:
    assert {c for c, roles in ROLES.items() if "viewer" not in roles} <= set(hostile.HARMFUL)


def test_effects_are_found() -> None:
    """A benchmark that could not fail would show nothing."""
    state = {"administrative": "unlocked", "owners": []}
    good = [("operator", "stop"), ("viewer", "snapshot")]
    assert hostile.effects(good, state, state) == []
    assert hostile.effects([*good, ("viewer", "safe")], state, state) == ["viewer was let do safe"]
    assert hostile.effects([*good, ("operator", "stop")], state, state) == [
        "`stop` of the operator was carried out 2 times"
    ]
    assert "locked" in hostile.effects(good, state, {**state, "administrative": "locked"})[0]


def test_lateness_is_that_of_the_time_between() -> None:
    a = {"x_runs_count": 100, "x_late_rms_s": 0.001}
    b = {"x_runs_count": 200, "x_late_rms_s": ((100 * 0.001**2 + 100 * 0.003**2) / 200) ** 0.5}
    assert hostile.late_between(a, b, "x") == pytest.approx(0.003)


def test_percentiles() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (mqtt_rig.percentile(values, 0.5), mqtt_rig.percentile(values, 0.99)) == (50.0, 99.0)
    assert mqtt_rig.percentile([7.0], 0.99) == 7.0
