"""A KME that is killed while encryptors ask: no key goes out twice, and what went out is marked so."""

from __future__ import annotations

import asyncio
import random
import ssl
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest

from qmodd.receive import read_states
from tests.kme.site import Sites
from tests.kme.test_both_sites import started

KILLS = 4


@pytest.mark.processes
async def test_killed_while_it_answers_it_gives_no_key_twice(tmp_path: Path) -> None:
    sites, rng = Sites(tmp_path), random.Random(3)
    sites.fill(range(1, 601))
    tls = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    tls.load_cert_chain(tmp_path / "SAE-A.pem", tmp_path / "SAE-A.key")
    got: list[int] = []
    for kill in range(KILLS + 1):
        server, port = await started(sites.config("a"))
        url = f"https://localhost:{port}/api/v1/keys/SAE-B/enc_keys?number=3"
        asked = 0
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls, force_close=True)) as session:
            while asked < 10:
                asked += 1
                if asked == 5 and kill < KILLS:
                    asyncio.get_running_loop().call_later(rng.uniform(0.0, 0.03), server.kill)
                try:
                    async with session.get(url) as answer:
                        if answer.status == 200:
                            got += [UUID(k["key_ID"]).int for k in (await answer.json())["keys"]]
                except aiohttp.ClientError:
                    break
        if server.returncode is None:
            server.kill()
        await server.communicate()
    assert len(got) == len(set(got)) > 12 * KILLS
    states = read_states(sites.store("a"))
    assert {states[str(UUID(int=n))] for n in got} == {"handed_out"}
    # At most the one answer that a kill cut off is lost each time.
    assert list(states.values()).count("handed_out") <= len(got) + 3 * KILLS
    receiver = sites.receiver("a")
    assert receiver.table.audit() is None
    receiver.close()
