"""Requests as the standard has them, over real TLS, against one KME in this process."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from cryptography import x509

from qmodd.clock import SystemClock
from qmodd.kme.desk import Caller, Desk
from qmodd.kme.server import Server, server_tls
from qmodd.kme.settings import load_settings
from qmodd.kme.wire import Refused
from qmodd.randomness import SystemRandomness
from qmodd.receive import read_states
from qmodd.receiver.split import direction_of
from tests.kme.certificates import TestAuthority
from tests.kme.site import Sites
from tests.receiver.build import key_of, notice
from tests.uplink_fakes import running

A_TAKES = [n for n in range(1, 41) if direction_of(UUID(int=n)) == 0]
B_TAKES = [n for n in range(1, 41) if direction_of(UUID(int=n)) == 1]


class Kme:
    """A running server of site a, and clients of it."""

    def __init__(self, sites: Sites, port: int, said: list[str]) -> None:
        self.sites, self.port, self.said = sites, port, said

    async def ask(
        self, path: str, data: object = None, *, sae: str = "SAE-A", method: str = "", raw: bytes | None = None
    ) -> tuple[int, Any]:
        tls = ssl.create_default_context(cafile=str(self.sites.directory / "ca.pem"))
        tls.load_cert_chain(self.sites.directory / f"{sae}.pem", self.sites.directory / f"{sae}.key")
        body = raw if raw is not None else None if data is None else json.dumps(data).encode()
        url = f"https://localhost:{self.port}{path}"
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls, force_close=True)) as session,
            session.request(method or ("GET" if body is None else "POST"), url, data=body) as answer,
        ):
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.content_type == "application/json"
            return answer.status, await answer.json()

    async def keys(self, path: str, data: object = None, *, sae: str = "SAE-A") -> dict[int, bytes]:
        status, answer = await self.ask(f"/api/v1/keys/{path}", data, sae=sae)
        assert status == 200, answer
        return {UUID(k["key_ID"]).int: base64.b64decode(k["key"]) for k in answer["keys"]}

    async def refused(self, path: str, data: object = None, **more: Any) -> tuple[int, str, Any]:
        status, answer = await self.ask(path if path.startswith("/") else f"/api/v1/keys/{path}", data, **more)
        assert set(answer) <= {"message", "details"}
        return status, answer["message"], answer.get("details")


@asynccontextmanager
async def kme(sites: Sites, **changes: str) -> AsyncIterator[Kme]:
    settings = load_settings(sites.config("a", **changes))
    desk = Desk(settings, SystemClock(), SystemRandomness())
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    said: list[str] = []
    with ThreadPoolExecutor(1) as disk:
        async with running(Server(settings, desk, said.append, disk).run(server_tls(settings), ready.set_result)):
            async with asyncio.timeout(10):
                port = await ready
            yield Kme(sites, port, said)
            # The server's side of a closed TLS connection goes a turn of the loop later than the client's.
            for _ in range(10):
                await asyncio.sleep(0)
    desk.close()


@pytest.fixture
def sites(tmp_path: Path) -> Sites:
    made = Sites(tmp_path)
    made.fill(range(1, 41))
    return made


async def test_status_and_keys_of_a_master(sites: Sites) -> None:
    async with kme(sites) as k:
        status, told = await k.ask("/api/v1/keys/SAE-B/status")
        assert (status, told) == (
            200,
            {
                "source_KME_ID": "KME-A",
                "target_KME_ID": "KME-B",
                "master_SAE_ID": "SAE-A",
                "slave_SAE_ID": "SAE-B",
                "key_size": 256,
                "stored_key_count": len(A_TAKES),
                "max_key_count": 100_000,
                "max_key_per_request": 8,
                "max_key_size": 256,
                "min_key_size": 256,
                "max_SAE_ID_count": 0,
            },
        )
        got = await k.keys("SAE-B/enc_keys")
        got |= await k.keys("SAE-B/enc_keys?number=2&size=256")
        got |= await k.keys("SAE-B/enc_keys", {})
        got |= await k.keys("SAE-B/enc_keys", {"number": 3, "size": 256, "extension_optional": [{"x": 1}]})
        assert got == {n: key_of(n) for n in A_TAKES[:7]}
        assert (await k.ask("/api/v1/keys/SAE-B/status"))[1]["stored_key_count"] == len(A_TAKES) - 7
        assert not any(base64.b64encode(key).decode() in "".join(k.said) for key in got.values())


async def test_keys_of_a_slave_by_id_once(sites: Sites) -> None:
    first, second, third = B_TAKES[:3]
    async with kme(sites) as k:
        by_get = await k.keys(f"SAE-B/dec_keys?key_ID={UUID(int=first)}")
        by_post = await k.keys("SAE-B/dec_keys", {"key_IDs": [{"key_ID": str(UUID(int=n))} for n in (third, second)]})
        assert list((by_get | by_post).items()) == [(n, key_of(n)) for n in (first, third, second)]
        # One that is gone keeps the others in.
        ids = {"key_IDs": [{"key_ID": str(UUID(int=n))} for n in (first, B_TAKES[3], 999, A_TAKES[0])]}
        status, message, details = await k.refused("SAE-B/dec_keys", ids)
        assert (status, message) == (400, "one or more keys specified are not found on KME")
        assert [d["why"] for d in details] == ["handed out before", "not found", "not a key of this master"]
        assert read_states(sites.store("a"))[str(UUID(int=B_TAKES[3]))] == "usable"


async def test_a_key_that_is_not_yet_usable_here_may_be_asked_for_again(sites: Sites) -> None:
    sites.fill(range(41, 61), pending_at="a")
    n = next(n for n in range(41, 61) if direction_of(UUID(int=n)) == 1)
    async with kme(sites) as k:
        path = f"SAE-B/dec_keys?key_ID={UUID(int=n)}"
        status, _, details = await k.refused(path)
        assert (status, details[0]["why"]) == (503, "not yet usable at this site")
        receiver = sites.receiver("a")  # its own process in earnest: the same file at the same time
        receiver.notice(notice("usable", [n]))
        assert await k.keys(path) == {n: key_of(n)}
        receiver.close()


async def test_all_or_none_and_later_again(sites: Sites) -> None:
    async with kme(sites, max_keys_per_request="100") as k:
        status, message, details = await k.refused("SAE-B/enc_keys", {"number": len(A_TAKES) + 1})
        assert (status, details) == (503, [{"stored_key_count": len(A_TAKES)}])
        assert "ask again later" in message
        assert len(await k.keys("SAE-B/enc_keys", {"number": len(A_TAKES)})) == len(A_TAKES)


@pytest.mark.parametrize(
    ("path", "data", "status", "message"),
    [
        ("SAE-B/enc_keys", {"number": 0}, 400, "bad request format"),
        ("SAE-B/enc_keys", {"number": "3"}, 400, "bad request format"),
        ("SAE-B/enc_keys", {"number": 9}, 400, "at most 8"),
        ("SAE-B/enc_keys?number=-1", None, 400, "number is not a whole number"),
        ("SAE-B/enc_keys?number=9999999999", None, 400, "number is not a whole number"),
        ("SAE-B/enc_keys?size=0", None, 400, "bad request format"),
        ("SAE-B/enc_keys", {"size": 128}, 400, "keys of 256 bit only"),
        ("SAE-B/enc_keys", {"additional_slave_SAE_IDs": ["C"]}, 400, "max_SAE_ID_count is 0"),
        ("SAE-B/enc_keys", {"extension_mandatory": [{"route": 1}]}, 400, "not all extension_mandatory"),
        ("SAE-B/enc_keys", [1], 400, "bad request format"),
        ("SAE-C/enc_keys", None, 400, "no keys are shared with this SAE"),
        ("SAE-A/status", None, 400, "no keys are shared with this SAE"),
        ("SAE-B/dec_keys", None, 400, "key_ID is missing"),
        ("SAE-B/dec_keys", {"key_IDs": []}, 400, "bad request format"),
        ("SAE-B/dec_keys", {"key_IDs": [{"key_ID": "7"}]}, 400, "not a UUID"),
        ("SAE-B/dec_keys", {"key_IDs": [{"key_ID": str(UUID(int=1))}] * 2}, 400, "twice"),
        ("SAE-B/dec_keys", {"key_IDs": [{"key_ID": str(UUID(int=n))} for n in range(9)]}, 400, "at most 8"),
        ("SAE-B/keys", None, 404, "Not Found"),
        ("/", None, 404, "Not Found"),
    ],
)
async def test_refusals(sites: Sites, path: str, data: object, status: int, message: str) -> None:
    async with kme(sites) as k:
        found = await k.refused(path, data)
        assert found[0] == status
        assert message in found[1]
        assert set(read_states(sites.store("a")).values()) == {"usable"}


async def test_more_refusals(sites: Sites) -> None:
    async with kme(sites) as k:
        assert (await k.refused("SAE-B/status", method="DELETE"))[0] == 405
        assert await k.refused("SAE-B/enc_keys", raw=b"{") == (400, "bad request format", [{"body": _ANY}])
        status, message, _ = await k.refused("SAE-B/enc_keys", raw=b" " * 70_000)
        assert (status, message) == (400, "a request of more than 65536 bytes")
        status, message, _ = await k.refused("SAE-B/enc_keys", sae="SAE-X")
        assert (status, message) == (401, "the client certificate is not that of an SAE of this KME")
        status, message, _ = await k.refused("SAE-A/enc_keys", sae="SAE-B")
        assert status == 401  # the other site's SAE is none of this KME


class _Anything:
    def __eq__(self, other: object) -> bool:
        return True


_ANY = _Anything()


async def test_without_a_certificate_of_the_authority_nobody_gets_in(sites: Sites) -> None:
    stranger = sites.directory / "stranger"
    stranger.mkdir()
    certificate, key = TestAuthority(stranger, "other-ca").issue("SAE-A")
    async with kme(sites) as k:
        for chain in (None, (certificate, key)):
            tls = ssl.create_default_context(cafile=str(sites.directory / "ca.pem"))
            if chain:
                tls.load_cert_chain(*chain)
            connector = aiohttp.TCPConnector(ssl=tls, force_close=True)
            async with aiohttp.ClientSession(connector=connector) as session:
                with pytest.raises(aiohttp.ClientError):
                    await session.get(f"https://localhost:{k.port}/api/v1/keys/SAE-B/status")
        with pytest.raises((ConnectionError, EOFError, asyncio.IncompleteReadError)):
            reader, writer = await asyncio.open_connection("localhost", k.port)
            writer.write(b"GET /api/v1/keys/SAE-B/status HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                await reader.readexactly(1)
            finally:
                writer.close()


async def test_an_sae_id_may_be_an_alternative_name_and_a_certificate_may_be_pinned(sites: Sites) -> None:
    sites.authority.issue("encryptor-7", x509.UniformResourceIdentifier("SAE-A"), x509.DNSName("e7.example"))

    pem = (sites.directory / "encryptor-7.pem").read_text()
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    async with kme(sites) as k:
        assert len(await k.keys("SAE-B/enc_keys", sae="encryptor-7")) == 1
    config = sites.config("a")
    config.write_text(config.read_text() + f'certificate_sha256 = "{pin}"\n')
    settings = load_settings(config)
    assert settings.pair[0].certificate_sha256 == pin
    desk = Desk(settings, SystemClock(), SystemRandomness())
    assert desk.counter(Caller(frozenset({"SAE-A"}), pin), "SAE-B").pair.sae_id == "SAE-A"
    with pytest.raises(Refused, match="not that of an SAE"):
        desk.counter(Caller(frozenset({"SAE-A"}), "0" * 64), "SAE-B")
    desk.close()


async def test_a_store_that_fails_is_the_server_s_fault_and_not_told_to_clients(sites: Sites) -> None:
    async with kme(sites) as k:
        receiver = sites.receiver("a")
        receiver.table.rows("UPDATE held SET sealed = x'00112233445566778899aabbccddeeff'")
        receiver.close()
        status, message, _ = await k.refused("SAE-B/enc_keys")
        assert (status, message) == (503, "the KME cannot use its key store at the moment")
        assert any("sealed data were changed" in line for line in k.said)
        assert set(read_states(sites.store("a")).values()) == {"usable"}
