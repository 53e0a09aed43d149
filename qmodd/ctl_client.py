"""What every command of `qmodctl` uses: modules as they speak of themselves, and signed requests to one of them."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from qmodd.clock import Clock
from qmodd.ctl_alarms import alarms_in
from qmodd.ctl_errors import CtlError
from qmodd.ctl_lab import Desk
from qmodd.identity import ClientFiles, sign_request
from qmodd.local_link import LocalLink, open_local
from qmodd.messages import ROOT, Alarm, Alive, CalibrationRecord, Progress, Reply, Request, RequestBody, SelftestReport
from qmodd.randomness import Randomness
from qmodd.uplink.mqtt_link import NO_MATCHING_SUBSCRIBERS, Arrived, BrokerSettings, Link, open_link
from qmodd.uplink.topics import Topics, module_of

REQUEST_LIFETIME = timedelta(seconds=60)
# Retained messages come at once after a subscription; silence for so long means that there are no more of them.
QUIET_S = 0.3
# The first of them may have a long way.
FIRST_S = 2.0
STATUS = ("alive", "state", "alarm/+", "approval/+")
# Modules that are named to somebody who has misspelt one.
MOST_NAMED = 12


@dataclass
class ModuleView:
    """What one module has said of itself, by topic below its root."""

    serial: str
    said: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Ready for JSON; an alarm that somebody has shelved is not among `alarms`."""
        alive, state = self._body("alive"), self._body("state")
        out: dict[str, Any] = {"module": self.serial, "alive": alive.get("state", "unknown")}
        for name in ("administrative", "operational", "activity"):
            out[name] = state.get(name, {}).get("value", "unknown")
            out[f"{name}_why"] = state.get(name, {}).get("why", "")
        out["inhibited"] = state.get("inhibited", [])
        alarms = {t.removeprefix("alarm/"): v for t, v in self.said.items() if t.startswith("alarm/")}
        out["alarms"] = sorted(id for id, v in alarms.items() if not (isinstance(v, dict) and v.get("shelved_until")))
        out["approvals"] = sorted(t.removeprefix("approval/") for t in self.said if t.startswith("approval/"))
        out["telemetry"] = {t.removeprefix("telemetry/"): v for t, v in self.said.items() if t.startswith("telemetry/")}
        return out

    def _body(self, topic: str) -> Mapping[str, Any]:
        found = self.said.get(topic)
        return found if isinstance(found, dict) else {}


@dataclass
class Views:
    """All modules that were heard."""

    modules: dict[str, ModuleView] = field(default_factory=dict)

    def take(self, topic: str, payload: bytes) -> str | None:
        """Returns the module's serial number; what is not JSON (key batches) is left out."""
        serial = module_of(topic)
        if serial is None:
            return None
        view = self.modules.setdefault(serial, ModuleView(serial))
        suffix = topic.removeprefix(f"{ROOT}/{serial}/")
        try:
            view.said[suffix] = json.loads(payload)
        except ValueError:
            view.said.pop(suffix, None)  # an empty payload clears the topic
        return serial


def parse_arguments(pairs: Sequence[str]) -> dict[str, Any]:
    """['force=true', 'target=phase'] -> values as JSON where they are JSON, else text. Raises CtlError."""
    out: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise CtlError(2, f"{pair!r} is not KEY=VALUE")
        try:
            out[key] = json.loads(value)
        except ValueError:
            out[key] = value
    return out


def topic_of(module: str, command: str) -> str:
    """`stop` is `command/stop`; `set/<path>` is itself."""
    topics = Topics(module)
    return topics.of(command) if command.startswith("set/") else topics.command(command)


def make_request(
    client: ClientFiles, module: str, epoch: str, command: str, arguments: dict[str, Any], clock: Clock, rnd: Randomness
) -> Request:
    """A signed request for one module in its present epoch. Raises CtlError when an argument does not fit."""
    now = clock.utc()
    try:
        body = RequestBody(
            module=module,
            topic=topic_of(module, command),
            epoch=epoch,
            id=str(rnd.uuid()),
            issued_at=now,
            expires_at=now + REQUEST_LIFETIME,
            client=client.signer.name,
            arguments=arguments,
        )
    except ValidationError as e:
        raise CtlError(2, "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in e.errors())) from None
    return sign_request(client.signer, client.certificate, body)


def not_known(module: str, known: Sequence[str]) -> CtlError:
    """For a module that the broker has nothing of: what it was perhaps meant to be."""
    close = difflib.get_close_matches(module, known, 3, 0.6)
    if close:
        return CtlError(3, f"the broker knows no module {module}; did you mean {' or '.join(close)}?")
    if not known:
        return CtlError(3, f"the broker knows no module {module}, and no other; is it the right broker?")
    more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
    return CtlError(3, f"the broker knows no module {module}; it knows {', '.join(sorted(known)[:MOST_NAMED])}{more}")


@dataclass
class Ctl:
    """The commands, over one connection each."""

    broker: BrokerSettings
    timeout_s: float
    clock: Clock
    randomness: Randomness
    progress: Callable[[Progress], None] = lambda _p: None
    local: Path | None = None

    @asynccontextmanager
    async def _link(self) -> AsyncIterator[Link | LocalLink]:
        if self.local is not None:
            async with open_local(self.local) as local:
                yield local
            return
        async with open_link(self.broker, f"qmodctl-{self.randomness.bytes(6).hex()}") as link:
            yield link

    # what is retained

    async def retained(self, module: str | None, *suffixes: str) -> dict[str, dict[str, bytes]]:
        """Retained payloads below the topics asked for (`alarm/+`, `settings/#`): module, topic below its root.

        Raises LinkDown; CtlError when the broker knows no such module.
        """
        found: dict[str, dict[str, bytes]] = {}
        for topic, payload in await self._gather(module, suffixes):
            if (serial := module_of(topic)) is not None:
                found.setdefault(serial, {})[topic.removeprefix(f"{ROOT}/{serial}/")] = payload
        return dict(sorted(found.items()))

    async def _gather(self, module: str | None, suffixes: Sequence[str]) -> list[tuple[str, bytes]]:
        async with self._link() as link:
            # Every module has an `alive`: where nothing else is retained, that is known without waiting.
            await link.subscribe(*(f"{ROOT}/{module or '+'}/{s}" for s in dict.fromkeys(("alive", *suffixes))))
            heard = [(m.topic, m.payload) async for m in _until_quiet(link)]
            if module is not None and not heard:
                await self._must_know(link, module)
            if isinstance(link, Link) and link.dropped:
                raise CtlError(3, f"{link.dropped} messages came faster than they could be taken; name one module")
        wanted = "alive" in suffixes
        return [(topic, payload) for topic, payload in heard if wanted or not topic.endswith("/alive")]

    async def _must_know(self, link: Link | LocalLink, module: str) -> None:
        """Raises CtlError, with those that it may have been, when there is no such module."""
        await link.subscribe(f"{ROOT}/+/alive")
        known = {module_of(m.topic) or "" async for m in _until_quiet(link)}
        if module not in known:
            raise not_known(module, sorted(known - {""}))

    async def _views(self, module: str | None, *more: str) -> Views:
        views = Views()
        for topic, payload in await self._gather(module, (*STATUS, *more)):
            views.take(topic, payload)
        return views

    async def status(self, module: str | None) -> list[dict[str, Any]]:
        """What is retained, of one module or all. Raises LinkDown, CtlError when the module is not known there."""
        return [v.summary() for _, v in sorted((await self._views(module)).modules.items())]

    async def alarms(self, module: str) -> list[Alarm]:
        """Active alarms of one module, the gravest first. Raises LinkDown, CtlError as `status` does."""
        return alarms_in((await self._views(module)).modules[module].said)

    async def calibrations(self, module: str) -> dict[str, CalibrationRecord]:
        """Active records of one module, by name, as they are retained. Raises LinkDown; CtlError for none."""
        found: dict[str, CalibrationRecord] = {}
        for _, payload in await self._gather(module, ("calibration/+",)):
            try:
                record = CalibrationRecord.model_validate_json(payload)
            except ValidationError:
                continue  # of another version of qmodd
            found[record.name] = record
        if not found:
            raise CtlError(3, f"the broker knows no calibrations of {module}")
        return dict(sorted(found.items()))

    async def selftest(self, module: str) -> SelftestReport:
        """The retained report of the last self-test. Raises LinkDown; CtlError for none."""
        found = await self._gather(module, ("selftest",))
        if not found:
            raise CtlError(3, f"the broker knows no self-test of {module}")
        try:
            return SelftestReport.model_validate_json(found[0][1])
        except ValidationError:
            raise CtlError(3, f"the self-test of {module} is of another version of qmodd") from None

    async def watch(self, modules: Sequence[str], wanted: Sequence[str], heard: Callable[[str, bytes], None]) -> None:
        """Every message of these modules (none: all) on the topics wanted, until cancelled.

        Raises LinkDown; CtlError for a module that is not known.
        """
        async with self._link() as link:
            for module in modules:
                await self._must_know(link, module)
        async with self._link() as link:
            await link.subscribe(*(f"{ROOT}/{m}/{t}" for m in modules or ("+",) for t in wanted))
            while True:
                message = await link.next_message()
                heard(message.topic, message.payload)

    # requests

    async def epoch(self, link: Link | LocalLink, module: str) -> str:
        """The module's present epoch from `alive`. Raises CtlError when it is offline or unknown."""
        await link.subscribe(Topics(module).alive)
        try:
            async with asyncio.timeout(min(self.timeout_s, FIRST_S)):
                message = await link.next_message()
            alive = Alive.model_validate_json(message.payload)
        except TimeoutError:
            await self._must_know(link, module)
            raise CtlError(3, f"{module} does not say that it is alive") from None
        except ValidationError:
            raise CtlError(3, f"{module} says nothing intelligible on `alive`") from None
        if alive.state != "online":
            raise CtlError(3, f"{module} is offline; it was last started at {alive.since.isoformat()}")
        return alive.epoch

    async def sign(self, client: ClientFiles, module: str, command: str, arguments: dict[str, Any]) -> Request:
        """A signed request that is not sent."""
        async with self._link() as link:
            epoch = await self.epoch(link, module)
        return make_request(client, module, epoch, command, arguments, self.clock, self.randomness)

    async def set(self, client: ClientFiles, module: str, path: str, value: Any) -> Reply:
        """Ask for a value of a setting; answered as `do` is."""
        return await self.do(client, module, f"set/{path}", {"value": value})

    async def do(self, client: ClientFiles, module: str, command: str, arguments: dict[str, Any]) -> Reply:
        """Send a signed request (`set/<path>`: for a setting) and wait for its answer. Raises CtlError, LinkDown."""
        reply_topic = Topics(module).reply(client.signer.name)
        async with self._link() as link:
            epoch = await self.epoch(link, module)
            request = make_request(client, module, epoch, command, arguments, self.clock, self.randomness)
            await link.subscribe(reply_topic)
            mark = self.randomness.bytes(8)
            code = await link.publish(
                topic_of(module, command),
                request.payload(),
                response_topic=reply_topic,
                correlation=mark,
                expires_in_s=int(REQUEST_LIFETIME.total_seconds()),
            )
            if code == NO_MATCHING_SUBSCRIBERS:
                raise CtlError(3, f"{module} does not listen: its uplink is not connected")
            if code:
                raise CtlError(3, f"the broker does not let {client.signer.name} send this (reason code {code:#x})")
            return await self._reply(link, mark)

    async def _reply(self, link: Link | LocalLink, mark: bytes) -> Reply:
        while True:
            try:
                async with asyncio.timeout(self.timeout_s):
                    message = await link.next_message()
            except TimeoutError:
                raise CtlError(3, f"no answer within {self.timeout_s:g} s; the module may still act on it") from None
            if message.correlation != mark:
                continue
            try:
                return Reply.model_validate_json(message.payload)
            except ValidationError:
                self.progress(Progress.model_validate_json(message.payload))


async def _until_quiet(link: Link | LocalLink) -> AsyncIterator[Arrived]:
    """What is retained: until nothing more comes. Raises LinkDown."""
    wait_s = FIRST_S
    while True:
        try:
            async with asyncio.timeout(wait_s):
                message = await link.next_message()
        except TimeoutError:
            return
        wait_s = QUIET_S
        yield message


@dataclass(frozen=True)
class Session:
    """One command of `qmodctl` as it was given."""

    ctl: Ctl
    arguments: argparse.Namespace
    out: Console
    errors: Console

    @property
    def as_json(self) -> bool:
        return bool(self.arguments.json)

    def client(self) -> ClientFiles:
        """Who asks. Raises CtlError when nobody is named, BadKeyFile."""
        if self.arguments.identity is None:
            raise CtlError(2, "whose request? give --identity DIR or set QMODD_IDENTITY")
        return ClientFiles.load(self.arguments.identity)

    def desk(self) -> Desk:
        """For requests to the command's module. Raises as `client` does."""
        client, module = self.client(), self.arguments.module
        return Desk(lambda command, values: self.ctl.do(client, module, command, values), self.as_json, self.out)
