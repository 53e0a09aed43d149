"""The service channel goes away while keys are made: no key is lost or different, and keys come back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from qmodd.soak import Run
from tests.app.pair import events, simulate, until, until_blocks, until_keying

pytestmark = pytest.mark.long

WHY = "the fibre of the service channel is cut"


class Cut:
    """Cut once in the middle of a block, once at the moment when a block closes (it is being distilled)."""

    def __init__(self, directory: object) -> None:
        self.notes: dict[str, Any] = {}
        self.run = simulate(directory, self._script)  # type: ignore[arg-type]

    async def _script(self, run: Run) -> None:
        engines = {name: site.core.engine for name, site in run.sites.items()}
        await until_keying(run)
        await asyncio.sleep(20.0)
        self.first_s = run.loop.time()
        await self._cut(run, 5.0)
        self.notes["back"] = await until_keying(run, 120.0)
        in_work = lambda: all(e.status.blocks_in_flight for e in engines.values())  # noqa: E731
        await until(run, in_work, 300.0, "a block is distilled", 0.001)
        self.second_s = run.loop.time()
        await self._cut(run, 2.0)
        self.notes["back again"] = await until_keying(run, 120.0)
        await until_blocks(run, 1)
        await asyncio.sleep(10.0)

    async def _cut(self, run: Run, seconds: float) -> None:
        run.uplink.cut_peers(WHY)
        said = self.notes.setdefault("states", {n: set[str]() for n in run.sites})
        for _ in range(round(10 * seconds)):
            await asyncio.sleep(0.1)
            for name, site in run.sites.items():
                said[name].add(site.core.life.why("activity"))
        run.uplink.connect_peers()


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cut]:
    cut = Cut(tmp_path_factory.mktemp("cut"))
    yield cut
    cut.run.close()


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_both_sides_say_why_there_are_no_keys(cut: Cut, name: str) -> None:
    assert any("service channel is not connected" in why for why in cut.notes["states"][name])
    assert any(WHY in str(e["why"]) for e in events(cut.run, name, "session.lost", cut.first_s))


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_the_block_in_work_is_aborted_with_the_reason(cut: Cut, name: str) -> None:
    """Unless the cut came after both had prepared it: then it is settled in the next session."""
    aborted = [str(e["why"]) for e in events(cut.run, name, "block.aborted", cut.second_s)]
    assert aborted
    assert all(aborted)


def test_keys_come_back_by_themselves(cut: Cut) -> None:
    assert cut.notes["back"] < 30.0
    assert cut.notes["back again"] < 30.0


def test_stores_are_equal_and_conserved(cut: Cut) -> None:
    alice, bob = (cut.run.sites[n].core.store for n in ("alice", "bob"))
    assert alice.commits == bob.commits >= 1
    assert set(alice.key_ids()) == set(bob.key_ids())
    assert [alice.audit(), bob.audit()] == [None, None]
    digests = [site.receiver.digests() for site in cut.run.sites.values()]
    assert digests[0] == digests[1] != {}


def test_light_and_locks_stay_on_through_a_cut(cut: Cut) -> None:
    for name in ("alice", "bob"):
        stops = [e for e in events(cut.run, name, "state.activity", cut.first_s) if e["value"] == "safe"]
        assert [e for e in stops if "stopping" not in str(e["why"])] == []
