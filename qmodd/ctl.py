"""`qmodctl`: operates modules over MQTT, or one of them over its local socket (--local). Every change goes as a signed
request and is answered with what is.

The broker is taken from --broker or QMODD_BROKER, the client's key and certificate from --identity or QMODD_IDENTITY (a
directory with `client.key` and `client.cert`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.live import Live

from qmodd.clock import Clock, SystemClock
from qmodd.crypto.suites import BadKeyFile
from qmodd.ctl_alarms import add_alarm_parser, alarms_in, show_alarms
from qmodd.ctl_errors import CtlError
from qmodd.ctl_lab import LAB, Desk, add_lab_parsers, show_calibrations
from qmodd.ctl_selftest import COMMANDS as TESTING
from qmodd.ctl_selftest import add_selftest_parsers, run_monitors, run_selftest, show_selftest
from qmodd.ctl_view import in_order, status_view
from qmodd.identity import ClientFiles, sign_request
from qmodd.local_link import LocalLink, open_local
from qmodd.messages import ROOT, Alarm, Alive, CalibrationRecord, Progress, Reply, Request, RequestBody, SelftestReport
from qmodd.randomness import Randomness, SystemRandomness
from qmodd.uplink.mqtt_link import NO_MATCHING_SUBSCRIBERS, BrokerSettings, Link, LinkDown, open_link
from qmodd.uplink.topics import Topics, module_of

REQUEST_LIFETIME = timedelta(seconds=60)
# Retained messages come at once after a subscription; silence for so long means that there are no more of them.
QUIET_S = 0.3


@dataclass
class ModuleView:
    """What one module has said of itself, by topic below its root."""

    serial: str
    said: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        alive, state = self.said.get("alive", {}), self.said.get("state", {})
        out: dict[str, Any] = {"module": self.serial, "alive": alive.get("state", "unknown")}
        for name in ("administrative", "operational", "activity"):
            out[name] = state.get(name, {}).get("value", "unknown")
            out[f"{name}_why"] = state.get(name, {}).get("why", "")
        out["inhibited"] = state.get("inhibited", [])
        # A shelved alarm is one that a person has decided not to be told of for a while.
        alarms = {t.removeprefix("alarm/"): v for t, v in self.said.items() if t.startswith("alarm/")}
        out["alarms"] = sorted(id for id, v in alarms.items() if not (isinstance(v, dict) and v.get("shelved_until")))
        out["telemetry"] = {t.removeprefix("telemetry/"): v for t, v in self.said.items() if t.startswith("telemetry/")}
        return out


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


def make_request(
    client: ClientFiles, module: str, epoch: str, command: str, arguments: dict[str, Any], clock: Clock, rnd: Randomness
) -> Request:
    """A signed request for one module in its present epoch. Raises CtlError when an argument does not fit."""
    now = clock.utc()
    try:
        body = RequestBody(
            module=module,
            topic=Topics(module).command(command),
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

    async def status(self, module: str | None) -> list[dict[str, Any]]:
        """What is retained, of one module or all. Raises LinkDown, CtlError when the module is not known there."""
        return [v.summary() for _, v in sorted((await self._views(module)).modules.items())]

    async def alarms(self, module: str) -> list[Alarm]:
        """Active alarms of one module, the gravest first. Raises LinkDown, CtlError as `status` does."""
        return alarms_in((await self._views(module)).modules[module].said)

    async def _views(self, module: str | None) -> Views:
        views = Views()
        async with self._link() as link:
            await link.subscribe(*(f"{ROOT}/{module or '+'}/{t}" for t in ("alive", "state", "alarm/+")))
            try:
                while True:
                    async with asyncio.timeout(QUIET_S):
                        message = await link.next_message()
                    views.take(message.topic, message.payload)
            except TimeoutError:
                pass  # quiet: everything retained has come
        if module is not None and module not in views.modules:
            raise CtlError(3, f"the broker knows no module {module}")
        return views

    async def calibrations(self, module: str) -> dict[str, CalibrationRecord]:
        """Active records of one module, by name, as they are retained. Raises LinkDown; CtlError for none."""
        found: dict[str, CalibrationRecord] = {}
        async with self._link() as link:
            await link.subscribe(f"{ROOT}/{module}/calibration/+")
            try:
                while True:
                    async with asyncio.timeout(QUIET_S):
                        message = await link.next_message()
                    try:
                        record = CalibrationRecord.model_validate_json(message.payload)
                    except ValidationError:
                        continue  # of another version of qmodd
                    found[record.name] = record
            except TimeoutError:
                pass
        if not found:
            raise CtlError(3, f"the broker knows no calibrations of {module}")
        return dict(sorted(found.items()))

    async def selftest(self, module: str) -> SelftestReport:
        """The retained report of the last self-test. Raises LinkDown; CtlError for none."""
        async with self._link() as link:
            await link.subscribe(Topics(module).of("selftest"))
            try:
                async with asyncio.timeout(self.timeout_s):
                    message = await link.next_message()
                return SelftestReport.model_validate_json(message.payload)
            except TimeoutError:
                raise CtlError(3, f"the broker knows no self-test of {module}") from None
            except ValidationError:
                raise CtlError(3, f"the self-test of {module} is of another version of qmodd") from None

    async def watch(self, module: str | None, show: Callable[[Views, str], None]) -> None:
        """Tell `show` of every change, until cancelled. Raises LinkDown."""
        views = Views()
        async with self._link() as link:
            wanted = ("alive", "state", "alarm/+", "telemetry/+", "kpi", "event")
            await link.subscribe(*(f"{ROOT}/{module or '+'}/{t}" for t in wanted))
            while True:
                message = await link.next_message()
                if (serial := views.take(message.topic, message.payload)) is not None:
                    show(views, serial)

    async def epoch(self, link: Link | LocalLink, module: str) -> str:
        """The module's present epoch from `alive`. Raises CtlError when it is offline or unknown."""
        await link.subscribe(Topics(module).alive)
        try:
            async with asyncio.timeout(self.timeout_s):
                message = await link.next_message()
            alive = Alive.model_validate_json(message.payload)
        except TimeoutError:
            raise CtlError(3, f"the broker knows no module {module}") from None
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

    async def do(self, client: ClientFiles, module: str, command: str, arguments: dict[str, Any]) -> Reply:
        """Send a signed request and wait for its answer. Raises CtlError, LinkDown."""
        topics = Topics(module)
        async with self._link() as link:
            epoch = await self.epoch(link, module)
            request = make_request(client, module, epoch, command, arguments, self.clock, self.randomness)
            reply_topic = topics.reply(client.signer.name)
            await link.subscribe(reply_topic)
            mark = self.randomness.bytes(8)
            code = await link.publish(
                topics.command(command),
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


# the command line


def parser() -> argparse.ArgumentParser:
    """Arguments of `qmodctl`."""
    top = argparse.ArgumentParser(prog="qmodctl", description="Operate QKD modules over MQTT.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--broker", default=os.environ.get("QMODD_BROKER", "mqtt://127.0.0.1:1883"), metavar="URL")
    common.add_argument(
        "--local",
        default=os.environ.get("QMODD_LOCAL"),
        metavar="PATH",
        type=Path,
        help="no broker: straight to core on this host, by its configuration file, state directory or socket",
    )
    common.add_argument("--identity", default=os.environ.get("QMODD_IDENTITY"), metavar="DIR", type=Path)
    common.add_argument("--timeout", type=float, default=30.0, metavar="S", help="wait so long for each answer")
    common.add_argument("--json", action="store_true", help="one JSON object as last line on stdout")
    commands = top.add_subparsers(dest="what", required=True)
    status = commands.add_parser("status", parents=[common], help="state and reasons", epilog="example: qmodctl status")
    watch = commands.add_parser("watch", parents=[common], help="changes as they come", epilog="example: qmodctl watch")
    for one in (status, watch):
        one.add_argument("module", nargs="?")
    for name, text in (("do", "send a signed request"), ("sign", "print a signed request for another client to send")):
        one = commands.add_parser(name, parents=[common], help=text, epilog=f"example: qmodctl {name} QM-A-0001 stop")
        one.add_argument("module")
        one.add_argument("command")
        one.add_argument("arguments", nargs="*", metavar="KEY=VALUE")
    add_alarm_parser(commands, common)
    add_lab_parsers(commands, common)
    add_selftest_parsers(commands, common)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 refused or not in order, 2 wrong usage, 3 not reachable."""
    arguments = parser().parse_args(argv)
    errors = Console(stderr=True)
    try:
        return asyncio.run(_run(arguments, errors))
    except KeyboardInterrupt:
        return 0
    except CtlError as e:
        errors.print(f"qmodctl: {e}", markup=False)
        return e.status
    except (BadKeyFile, ValidationError) as e:
        errors.print(f"qmodctl: {e}", markup=False)
        return 2
    except LinkDown as e:
        errors.print(f"qmodctl: {e}", markup=False)
        return 3


async def _run(arguments: argparse.Namespace, errors: Console) -> int:
    def progress(p: Progress) -> None:
        errors.print(f"{p.progress:4.0%} {p.text}", markup=False)

    broker = BrokerSettings(url=arguments.broker)
    ctl = Ctl(broker, arguments.timeout, SystemClock(), SystemRandomness(), progress, arguments.local)
    out = Console(soft_wrap=True)
    if arguments.what == "status":
        return _show_status(await ctl.status(arguments.module), arguments.json, out)
    if arguments.what == "watch":
        with Live(console=out, refresh_per_second=4, auto_refresh=not arguments.json) as live:
            await ctl.watch(arguments.module, lambda views, serial: _show_change(views, serial, arguments.json, live))
        return 0
    if arguments.what == "alarms":
        return show_alarms(await ctl.alarms(arguments.module), arguments.json, out, ctl.clock.utc())
    if arguments.what == "calibrations" and not arguments.diff and not arguments.rollback:
        return show_calibrations(await ctl.calibrations(arguments.module), arguments.json, out, ctl.clock.utc())
    if arguments.what == "selftest" and arguments.level is None:
        return show_selftest(await ctl.selftest(arguments.module), arguments, out)
    if arguments.identity is None:
        raise CtlError(2, "whose request? give --identity DIR or set QMODD_IDENTITY")
    client = ClientFiles.load(arguments.identity)
    if arguments.what in (*LAB, *TESTING):
        desk = Desk(lambda command, values: ctl.do(client, arguments.module, command, values), arguments.json, out)
        if arguments.what == "selftest":
            return await run_selftest(arguments, desk, lambda: ctl.selftest(arguments.module))
        if arguments.what == "monitors":
            return await run_monitors(arguments, desk)
        return await LAB[arguments.what](desk, arguments)
    values = parse_arguments(arguments.arguments)
    if arguments.what == "sign":
        request = await ctl.sign(client, arguments.module, arguments.command, values)
        sys.stdout.write(request.model_dump_json() + "\n")
        return 0
    return _show_reply(await ctl.do(client, arguments.module, arguments.command, values), arguments.json, out)


def _show_status(modules: list[dict[str, Any]], as_json: bool, out: Console) -> int:
    if as_json:
        sys.stdout.write(json.dumps({"modules": modules}) + "\n")
    else:
        out.print(status_view(modules))
    return 0 if modules and all(in_order(m) for m in modules) else 1


def _show_change(views: Views, serial: str, as_json: bool, live: Live) -> None:
    if as_json:
        sys.stdout.write(json.dumps(views.modules[serial].summary()) + "\n")
        sys.stdout.flush()
        return
    live.update(status_view([views.modules[name].summary() for name in sorted(views.modules)]))


def _show_reply(reply: Reply, as_json: bool, out: Console) -> int:
    if as_json:
        sys.stdout.write(reply.model_dump_json() + "\n")
    elif reply.ok:
        out.print("done")
        if reply.result:
            out.print_json(data=reply.result)
    elif reply.error is not None:
        out.print(f"refused ({reply.error.code}): {reply.error.message}", markup=False)
    return 0 if reply.ok else 1


if __name__ == "__main__":
    sys.exit(main())
