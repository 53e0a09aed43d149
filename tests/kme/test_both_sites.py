"""Both sites: no key goes to two masters, each goes out once a site, and an independent client gets equal keys."""

from __future__ import annotations

import asyncio
import base64
import re
import sys
from collections import Counter as Count
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from etsi_qkd_014_client import QKD014Client
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.clock import SystemClock
from qmodd.kme.desk import Counter, Desk
from qmodd.kme.settings import load_settings
from qmodd.kme.wire import KeyId, KeyIds, KeyRequest, Refused
from qmodd.randomness import SystemRandomness
from qmodd.receive import read_states
from qmodd.receiver.split import direction_of, direction_of_master
from tests.docs.pages import ROOT
from tests.kme.site import Sites
from tests.receiver.build import key_of


@settings(deadline=None)
@given(id_=st.uuids(), names=st.tuples(st.text(min_size=1), st.text(min_size=1)).filter(lambda t: t[0] != t[1]))
def test_both_sites_agree_which_master_may_take_a_key(id_: UUID, names: tuple[str, str]) -> None:
    one, other = direction_of_master(*names), direction_of_master(*reversed(names))
    assert {one, other} == {0, 1}
    assert direction_of(id_) in (0, 1)


def test_the_split_is_even_and_stays_what_it_is() -> None:
    ids = [UUID(int=n) for n in range(10_000)]
    assert 4_800 < sum(map(direction_of, ids)) < 5_200
    # Both sites must go by the same rule, whatever version they run.
    assert [direction_of(UUID(int=n)) for n in range(16)] == SPLIT_OF_16


SPLIT_OF_16 = [0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 0, 1, 1]


class Encryptors:
    """Both sites' KMEs without HTTP, and what their SAEs got."""

    def __init__(self, sites: Sites) -> None:
        self.desks = {s: Desk(load_settings(sites.config(s)), SystemClock(), SystemRandomness()) for s in "ab"}
        self.masters: Count[int] = Count()
        self.got: dict[str, Count[int]] = {"a": Count(), "b": Count()}

    def counter(self, site: str) -> Counter:
        return self.desks[site].counters[0]

    def take(self, site: str, n: int) -> list[int]:
        try:
            keys = self.counter(site).enc_keys(KeyRequest(number=n))
        except Refused:
            return []
        taken = [k.key_id.int for k in keys]
        assert [bytes(k.key) for k in keys] == [key_of(i) for i in taken]
        self.masters.update(taken)
        self.got[site].update(taken)
        return taken

    def fetch(self, site: str, numbers: list[int]) -> None:
        try:
            keys = self.counter(site).dec_keys(KeyIds(key_IDs=[KeyId(key_ID=str(UUID(int=n))) for n in numbers]))
        except Refused:
            return
        assert [bytes(k.key) for k in keys] == [key_of(n) for n in numbers]
        self.got[site].update(numbers)

    def close(self) -> None:
        for desk in self.desks.values():
            desk.close()


STEPS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 4), st.lists(st.integers(1, 30), max_size=3)), max_size=20
)


@settings(max_examples=15, deadline=None)
@given(steps=STEPS)
def test_no_key_goes_to_two_masters_and_none_twice_at_a_site(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, list[int]]]
) -> None:
    sites = Sites(tmp_path_factory.mktemp("sites"))
    sites.fill(range(1, 31))
    both = Encryptors(sites)
    for site, n, guessed in steps:
        other = "b" if site == "a" else "a"
        if taken := both.take(site, n):
            both.fetch(other, taken)
            both.fetch(other, taken)  # a second time gives nothing
        if guessed:
            both.fetch(site, guessed)  # somebody who asks for ids that no master has told
    both.close()
    assert set(both.masters.values()) <= {1}
    for site, counts in both.got.items():
        assert set(counts.values()) <= {1}, site


async def started(config: Path) -> tuple[asyncio.subprocess.Process, int]:
    """`qmodd kme` as it is started in earnest, and its port."""
    argv = (sys.executable, "-m", "qmodd", "kme", "--config", str(config))
    server = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, stderr=asyncio.subprocess.PIPE)
    assert server.stderr is not None
    async with asyncio.timeout(30):
        line = (await server.stderr.readline()).decode()
    port = re.search(r"port (\d+)", line)
    assert port, line + (await server.stderr.read()).decode()
    return server, int(port[1])


@asynccontextmanager
async def process(config: Path) -> AsyncIterator[int]:
    """The port of a server that ends with status 0 when it is told to."""
    server, port = await started(config)
    try:
        yield port
        server.terminate()
        async with asyncio.timeout(10):
            await server.communicate()
        assert server.returncode == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.communicate()


@pytest.mark.processes
async def test_an_independent_client_gets_the_same_keys_from_both_sites(tmp_path: Path) -> None:
    sites = Sites(tmp_path)
    sites.fill(range(1, 41))
    files = {s: [str(tmp_path / f) for f in (f"SAE-{s}.pem", f"SAE-{s}.key", "ca.pem")] for s in "AB"}
    async with process(sites.config("a")) as port_a, process(sites.config("b")) as port_b:
        a = QKD014Client(f"localhost:{port_a}", *files["A"])
        b = QKD014Client(f"localhost:{port_b}", *files["B"])
        for master, slave, me, you in ((a, b, "SAE-A", "SAE-B"), (b, a, "SAE-B", "SAE-A")):
            code, status = await asyncio.to_thread(master.get_status, you)
            assert (code, status.master_sae_id, status.slave_sae_id) == (200, me, you)
            assert status.stored_key_count > 8
            code, first = await asyncio.to_thread(master.get_key, you)
            assert (code, len(first.keys)) == (200, 1)
            code, more = await asyncio.to_thread(master.get_key, you, 5, 256)
            assert (code, len(more.keys)) == (200, 5)
            taken = {k.key_id: k.key for k in first.keys + more.keys}
            code, same = await asyncio.to_thread(slave.get_key_with_key_IDs, me, list(taken))
            assert code == 200
            assert {k.key_id: k.key for k in same.keys} == taken
            assert {base64.b64decode(v) for v in taken.values()} == {key_of(UUID(i).int) for i in taken}
            code, error = await asyncio.to_thread(slave.get_key_with_key_IDs, me, list(taken))
            assert (code, error.message) == (400, "one or more keys specified are not found on KME")
            code, error = await asyncio.to_thread(master.get_key, you, 1, 128)
            assert code == 400
    for site in "ab":
        assert Count(read_states(sites.store(site)).values())["handed_out"] == 12
