"""The HTTPS face: TLS with client certificates, routes and error bodies of ETSI GS QKD 014 v1.1.1."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from qmodd.keys.store import StoreRefused
from qmodd.kme.desk import Caller, Counter, Desk
from qmodd.kme.settings import KmeSettings
from qmodd.kme.wire import KeyId, KeyIds, Refused, parse_ids, parse_query, parse_request
from qmodd.receiver.container import container
from qmodd.receiver.handing import HeldKey

MAX_BODY_BYTES = 65_536
SWEEP_EVERY_S = 60.0
STOP_WITHIN_S = 2.0
HEADERS = {"Cache-Control": "no-store"}
Result = TypeVar("Result")
Say = Callable[[str], None]


def server_tls(settings: KmeSettings) -> ssl.SSLContext:
    """Nobody gets in without a certificate of `client_ca`. Raises OSError (ssl.SSLError is one)."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(settings.client_ca))
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.certificate, settings.key)
    return context


def caller_of(request: web.Request) -> Caller:
    """Common name and alternative names of the client's certificate, which TLS has verified. Raises Refused."""
    tls = request.transport and request.transport.get_extra_info("ssl_object")
    certificate, raw = (tls.getpeercert(), tls.getpeercert(binary_form=True)) if tls else (None, None)
    if not certificate or not raw:
        raise Refused(401, "no client certificate")
    names = {v for part in certificate.get("subject", ()) for k, v in part if k == "commonName"}
    names |= {v for k, v in certificate.get("subjectAltName", ()) if k in ("DNS", "URI")}
    return Caller(frozenset(names), hashlib.sha256(raw).hexdigest())


@dataclass(frozen=True)
class Server:
    """`say` gets a line per answer with keys and per refusal; never a key."""

    settings: KmeSettings
    desk: Desk
    say: Say
    disk: ThreadPoolExecutor

    async def run(self, context: ssl.SSLContext, on_ready: Callable[[int], None]) -> None:
        """Serve until cancelled. `on_ready` gets the port. Raises OSError if it cannot listen."""
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=STOP_WITHIN_S)
        await runner.setup()
        try:
            host, port = self.settings.address()
            await web.TCPSite(runner, host, port, ssl_context=context).start()
            on_ready(runner.addresses[0][1])
            while True:
                await self._on_disk(self.desk.sweep)
                await asyncio.sleep(SWEEP_EVERY_S)
        finally:
            await runner.cleanup()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._errors])
        keys = "/api/v1/keys/{sae_id}"
        app.router.add_get(f"{keys}/status", self._status)
        for method in ("GET", "POST"):
            app.router.add_route(method, f"{keys}/enc_keys", self._enc_keys)
            app.router.add_route(method, f"{keys}/dec_keys", self._dec_keys)
        return app

    async def _status(self, request: web.Request) -> web.Response:
        counter = self._counter(request)
        status = await self._on_disk(counter.status)
        return web.json_response(status.model_dump(), headers=HEADERS)

    async def _enc_keys(self, request: web.Request) -> web.Response:
        counter = self._counter(request)
        if request.method == "GET":
            wanted = parse_query(dict(request.query))
        else:
            wanted = parse_request(await request.read())
        return await self._keys(counter, "as master", lambda: counter.enc_keys(wanted))

    async def _dec_keys(self, request: web.Request) -> web.Response:
        counter = self._counter(request)
        if request.method == "GET":
            ids = KeyIds.model_construct(key_IDs=[KeyId(key_ID=i) for i in request.query.getall("key_ID", [])])
            if not ids.key_IDs:
                raise Refused(400, "key_ID is missing")
        else:
            ids = parse_ids(await request.read())
        return await self._keys(counter, "as slave", lambda: counter.dec_keys(ids))

    async def _keys(self, counter: Counter, role: str, take: Callable[[], list[HeldKey]]) -> web.Response:
        keys = await self._on_disk(take)
        self.say(f"{counter.pair.sae_id} took {len(keys)} keys {role} towards {counter.pair.peer_sae_id}")
        return web.Response(body=container(keys), content_type="application/json", headers=HEADERS)

    def _counter(self, request: web.Request) -> Counter:
        return self.desk.counter(caller_of(request), request.match_info["sae_id"])

    async def _on_disk(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self.disk, work)

    @property
    def _errors(self) -> Middleware:
        """Every error has the standard's error body; what is wrong inside is told to the operator only."""

        @web.middleware
        async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            except Refused as e:
                refused = e
            except web.HTTPRequestEntityTooLarge:
                refused = Refused(400, f"a request of more than {MAX_BODY_BYTES} bytes")
            except web.HTTPException as e:
                refused = Refused(e.status, e.reason)
            except (StoreRefused, sqlite3.Error, OSError) as e:
                self.say(f"key store: {e}")
                refused = Refused(503, "the KME cannot use its key store at the moment")
            self.say(f"{request.method} {request.path[:200]!r}: {refused.status} {refused}")
            body = json.dumps(refused.body()).encode()
            return web.Response(status=refused.status, body=body, content_type="application/json", headers=HEADERS)

        return errors
