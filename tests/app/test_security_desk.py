"""The desk of two-person commands and its handlers: what is told, what is refused, what a restart finishes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from qmodd.app import security_commands
from qmodd.app.security_commands import Keys, actions, security_handlers
from qmodd.app.security_desk import Action, SecurityDesk
from qmodd.app.wiring import Wiring
from qmodd.keys.conversation import Blocking
from qmodd.messages import Client
from qmodd.outbox import Outbox
from qmodd.randomness import SeededRandomness
from qmodd.requests import ROLES, Refusal
from tests.uplink_fakes import START, HandClock, Log

ANN = Client("ann", "security", "a" * 32)
BEN = Client("ben", "security", "b" * 32)
PAST = "2025-12-31T23:00:00Z"


class Store:
    """Stands for the key store."""

    def __init__(self) -> None:
        self.ids = [uuid4() for _ in range(3)]
        self.purged: list[float] = []

    def select(self, *, block: UUID | None = None, created_before: float | None = None) -> list[UUID]:
        return [] if block == UUID(int=0) else list(self.ids)

    def purge(self, before: float) -> int:
        self.purged.append(before)
        return 7

    def totals(self) -> dict[str, int]:
        return {"purged": 7}


class Site:
    """One life of a desk; another `Site` on the same directory is the next one."""

    def __init__(self, directory: Path, clock: HandClock | None = None) -> None:
        self.clock, self.log = clock or HandClock(), Log()
        self.outbox = Outbox(directory / "outbox.db")
        config = SimpleNamespace(
            module=SimpleNamespace(state_dir=directory, serial="QM-A-0001"), safety=SimpleNamespace(approval_s=900.0)
        )
        self.wiring = cast(
            Wiring,
            SimpleNamespace(
                config=config, clock=self.clock, outbox=self.outbox, events=SimpleNamespace(record=self.log)
            ),
        )
        self.zeroised: list[str] = []
        self.rekeyed: list[str] = []
        self.why_no_pad = ""
        self.begun: list[str] = []
        zeroising = SimpleNamespace(at_start=lambda: None, run=self._zeroise, begin=self._begin)
        rekeying = SimpleNamespace(check=self._check, stage=self._stage, resume=self._none, step=self._none)
        rekeying.abandon = lambda by: {"staged": False}
        self.store, self.revoked = Store(), list[UUID]()
        keys = Keys(cast(Any, self.store), self._revoke, Blocking(False), self.clock, self.log)
        rng = SeededRandomness(id(self) % 1000)
        self.desk = SecurityDesk(self.wiring, rng, cast(Any, zeroising), cast(Any, rekeying))
        self.desk.actions = actions(keys, cast(Any, rekeying), cast(Any, zeroising))
        self.wiring.security, self.wiring.security_keys = self.desk, keys
        self.handlers = security_handlers(self.wiring)

    async def _none(self) -> None:
        return None

    def _check(self) -> None:
        if self.why_no_pad:
            raise Refusal("wrong_state", self.why_no_pad)

    def _stage(self, by: str) -> dict[str, Any]:
        self.rekeyed.append(by)
        return {"staged": True}

    def _begin(self, why: str, by: str) -> None:
        self.begun.append(f"{by}: {why}")

    async def _zeroise(self, why: str, by: str) -> dict[str, Any]:
        self.zeroised.append(f"{by}: {why}")
        return {"zeroised": True}

    async def _revoke(self, ids: Sequence[UUID], why: str) -> int:
        self.revoked += ids
        return len(ids)

    async def do(self, command: str, who: Client, **arguments: Any) -> dict[str, Any]:
        self.who = who
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(security_commands, "requesting", lambda: who)
            return await self.handlers[command](arguments)

    async def refused(self, command: str, who: Client, **arguments: Any) -> tuple[str, str]:
        with pytest.raises(Refusal) as e:
            await self.do(command, who, **arguments)
        return e.value.code, str(e.value)

    def told(self, name: str) -> list[Mapping[str, Any]]:
        return [cast(Mapping[str, Any], fields) for n, fields in self.log.entries if n == name]

    def retained(self) -> dict[str, bytes]:
        return {s: p for s, p in self.outbox.retained("approval/").items() if p}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def _told(real: Any, done: asyncio.Event) -> Any:
    async def run(why: str, by: str) -> Any:
        out = await real(why, by)
        done.set()
        return out

    return run


async def ask(site: Site, command: str = "zeroise", **arguments: Any) -> str:
    told = await site.do(command, ANN, **(arguments or {"why": "sold"}))
    assert told["done"] is False
    return str(told["approval"]["id"])


def test_every_command_is_for_the_role_security_but_the_list() -> None:
    found = set(security_handlers(cast(Any, None)))
    assert {name for name in found if ROLES[name] == {"security"}} == found - {"approvals"}


async def test_asked_for_it_is_retained_and_told_and_nothing_is_done(site: Site) -> None:
    id = await ask(site)
    (topic, payload), *rest = site.retained().items()
    assert (topic, rest) == (f"approval/{id}", [])
    assert json.loads(payload)["arguments"] == {"why": "sold"}
    (wanted,) = site.told("approval.wanted")
    assert (wanted["command"], wanted["by"], wanted["arguments"]) == ("zeroise", "ann", '{"why": "sold"}')
    assert site.zeroised == []


async def test_another_approves_and_it_is_done(site: Site) -> None:
    id = await ask(site)
    assert (await site.refused("approve", ANN, approval=id))[0] == "not_allowed"
    assert await site.do("approve", BEN, approval=id) == {"done": True, "command": "zeroise", "zeroised": True}
    assert site.zeroised == ["ann and ben: sold"]
    assert site.retained() == {}
    assert [n for n in site.log.names if n.startswith("approval.")] == [
        "approval.wanted",
        "approval.refused",
        "approval.given",
        "approval.done",
    ]
    assert (await site.refused("approve", BEN, approval=id))[0] == "bad_arguments"
    assert len(site.zeroised) == 1


async def test_rejected_or_expired_it_is_not_done(site: Site) -> None:
    id = await ask(site)
    assert await site.do("reject", BEN, approval=id, why="no") == {"approvals": []}
    (rejected,) = site.told("approval.rejected")
    assert (rejected["by"], rejected["asked_by"], rejected["why"]) == ("ben", "ann", "no")
    await ask(site)
    site.clock.t += 901.0
    await site.desk.tick()
    assert site.told("approval.expired")
    assert site.retained() == {}
    assert site.zeroised == []


async def test_the_tamper_contact_zeroises_without_anybody(site: Site) -> None:
    done = asyncio.Event()
    site.desk.zeroising.run = _told(site.desk.zeroising.run, done)  # type: ignore[method-assign]
    work = asyncio.create_task(site.desk.run())
    site.wiring.tampered("the cover was opened")
    async with asyncio.timeout(5.0):
        await done.wait()
    work.cancel()
    await asyncio.wait({work})
    assert site.begun == ["tamper contact: the cover was opened"]
    assert site.zeroised == ["tamper contact: the cover was opened"]


async def test_what_cannot_be_done_now_waits_on(site: Site) -> None:
    id = await ask(site, "rekey")
    site.why_no_pad = "no pad was brought"
    assert await site.refused("approve", BEN, approval=id) == ("wrong_state", "no pad was brought")
    assert await site.refused("rekey", BEN) == ("wrong_state", "no pad was brought")
    site.why_no_pad = ""
    assert (await site.do("approve", BEN, approval=id))["staged"]
    assert site.rekeyed == ["ann and ben"]
    assert await site.do("rekey", BEN, abandon=True) == {"staged": False}


async def test_an_action_that_fails_is_used_up_and_on_record(site: Site) -> None:
    async def fail(arguments: Any, by: str) -> dict[str, Any]:
        raise Refusal("wrong_state", "the pad is gone")

    site.desk.actions = {**site.desk.actions, "rekey": Action(lambda arguments: None, fail)}
    id = await ask(site, "rekey")
    assert (await site.refused("approve", BEN, approval=id))[1] == "the pad is gone"
    assert site.told("approval.failed")[0]["why"] == "the pad is gone"
    assert site.desk.pending() == {"approvals": []}
    assert site.retained() == {}


async def test_what_waits_survives_a_restart(site: Site, tmp_path: Path) -> None:
    id = await ask(site)
    again = Site(tmp_path)
    await again.desk.resume()
    assert [a["id"] for a in again.desk.pending()["approvals"]] == [id]
    assert set(again.retained()) == {f"approval/{id}"}
    await again.do("approve", BEN, approval=id)
    assert again.zeroised == ["ann and ben: sold"]


async def test_what_was_approved_is_finished_by_the_next_life(site: Site, tmp_path: Path) -> None:
    id = await ask(site)
    site.desk.approvals.approve(id, BEN)  # and the process ends
    again = Site(tmp_path)
    await again.desk.resume()
    assert again.zeroised == ["ann and ben: sold"]
    assert again.retained() == {}
    third = Site(tmp_path)
    await third.desk.resume()
    assert third.zeroised == []


async def test_a_stop_in_the_middle_leaves_it_owed(site: Site, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def endless(arguments: Any, by: str) -> dict[str, Any]:
        begun.set()
        await asyncio.Event().wait()
        return {}

    site.desk.actions = {**site.desk.actions, "zeroise": Action(lambda arguments: None, endless)}
    id = await ask(site)
    work = asyncio.create_task(site.desk.approve(id, BEN))
    await begun.wait()
    work.cancel()
    await asyncio.wait({work})
    again = Site(tmp_path)
    await again.desk.resume()
    assert again.zeroised == ["ann and ben: sold"]


async def test_a_damaged_file_is_told_and_its_topics_are_cleared(site: Site, tmp_path: Path) -> None:
    await ask(site)
    (tmp_path / "approvals.json").write_text("{")
    again = Site(tmp_path)
    await again.desk.resume()
    assert again.told("approval.file_damaged")
    assert again.retained() == {}


async def test_purge(site: Site) -> None:
    id = await ask(site, "purge", before=PAST)
    told = await site.do("approve", BEN, approval=id)
    assert told["purged"] == 7
    assert site.store.purged == [START.timestamp() - 3600.0]
    assert site.told("keys.purged")[0]["by"] == "ann and ben"


@pytest.mark.parametrize("before", ["2026-01-01T00:00:01Z", "yesterday", None, 5, "2025-12-31T23:00:00"])
async def test_purge_takes_a_time_that_has_passed(site: Site, before: Any) -> None:
    code, why = await site.refused("purge", ANN, before=before)
    assert code == "bad_arguments"
    assert why.startswith("before = ")


async def test_no_lifetime_is_judged_by_a_clock_that_is_not_synchronised(site: Site) -> None:
    site.clock.synchronised = False
    assert (await site.refused("purge", ANN, before=PAST))[0] == "wrong_state"


async def test_the_same_time_in_another_zone_is_the_same_request(site: Site) -> None:
    id = await ask(site, "purge", before=PAST)
    assert id == await ask(site, "purge", before="2026-01-01T01:00:00+02:00")


async def test_revoke_by_id_block_or_time(site: Site) -> None:
    ids = [str(i) for i in site.store.ids]
    assert (await site.do("revoke", ANN, key_ids=[*ids, ids[0]], why="lost"))["asked"] == 3
    assert site.revoked == site.store.ids
    assert (await site.do("revoke", ANN, block=str(uuid4())))["key_ids"] == ids
    assert (await site.do("revoke", ANN, all_before=PAST))["revoked"] == 3
    told = site.told("keys.revoked_by_command")
    assert [(t["keys"], t["by"]) for t in told] == [(3, "ann")] * 3
    assert told[0]["why"] == "lost"


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"key_ids": []},
        {"key_ids": ["x"]},
        {"key_ids": "x"},
        {"key_ids": [5]},
        {"block": "x"},
        {"block": str(UUID(int=0))},
        {"all_before": "2027-01-01T00:00:00Z"},
        {"block": str(UUID(int=1)), "all_before": PAST},
    ],
)
async def test_revoke_needs_exactly_one_that_fits(site: Site, arguments: dict[str, Any]) -> None:
    assert (await site.refused("revoke", ANN, **arguments))[0] == "bad_arguments"
    assert site.revoked == []


async def test_only_a_signed_request_counts(site: Site) -> None:
    assert (await site.refused("zeroise", cast(Any, None), why="x"))[0] == "not_allowed"
