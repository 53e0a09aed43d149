"""`qmodctl`: operates modules over MQTT, or one of them over its local socket (--local). Every change goes as a signed
request and is answered with what is.

The broker is taken from --broker or QMODD_BROKER, the client's key and certificate from --identity or QMODD_IDENTITY (a
directory with `client.key` and `client.cert`), what TLS needs from --ca, --certificate and --key or QMODD_CA,
QMODD_CERTIFICATE and QMODD_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from qmodd.clock import SystemClock
from qmodd.crypto.suites import BadKeyFile
from qmodd.ctl_alarms import add_alarm_parser, show_alarms
from qmodd.ctl_client import Ctl, Session, Views, make_request, parse_arguments
from qmodd.ctl_completion import add_completion_parser, completion
from qmodd.ctl_errors import CtlError
from qmodd.ctl_fleet import add_fleet_parser, run_fleet
from qmodd.ctl_keys import add_keys_parser, run_keys
from qmodd.ctl_kpi import add_kpi_parser, run_kpi
from qmodd.ctl_lab import LAB, add_lab_parsers, show_calibrations
from qmodd.ctl_security import add_security_parsers, run_approvals, run_approve, run_reject
from qmodd.ctl_selftest import add_selftest_parsers, run_monitors, run_selftest, show_selftest
from qmodd.ctl_settings import add_settings_parsers, run_get, run_set, run_undo
from qmodd.ctl_view import in_order, status_view
from qmodd.ctl_watch import add_watch_parser, run_watch
from qmodd.messages import Progress, Reply
from qmodd.randomness import SystemRandomness
from qmodd.uplink.mqtt_link import BrokerSettings, LinkDown

__all__ = ["Ctl", "CtlError", "Session", "Views", "main", "make_request", "parse_arguments", "parser"]


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Arguments of `qmodctl`. Of another `command` than these, those that are slow to load are there by name only."""
    top = argparse.ArgumentParser(prog="qmodctl", description="Operate QKD modules over MQTT.")
    common = _common()
    commands = top.add_subparsers(dest="what", required=True)
    status = commands.add_parser("status", parents=[common], help="state and reasons", epilog="example: qmodctl status")
    status.add_argument("module", nargs="?")
    add_watch_parser(commands, common)
    add_fleet_parser(commands, common)
    for name, text in (("do", "send a signed request"), ("sign", "print a signed request for another client to send")):
        one = commands.add_parser(name, parents=[common], help=text, epilog=f"example: qmodctl {name} QM-A-0001 stop")
        one.add_argument("module")
        one.add_argument("command", help="a command of the module, or set/PATH")
        one.add_argument("arguments", nargs="*", metavar="KEY=VALUE")
    add_alarm_parser(commands, common)
    add_lab_parsers(commands, common)
    add_selftest_parsers(commands, common)
    add_settings_parsers(commands, common)
    add_keys_parser(commands, common)
    add_kpi_parser(commands, common)
    add_security_parsers(commands, common)
    add_completion_parser(commands)
    if command in RUN and command not in SLOW:
        for name in SLOW:
            commands.add_parser(name)
        return top
    from qmodd.ctl_optimise import add_optimise_parser

    add_optimise_parser(commands, common)
    return top


def _common() -> argparse.ArgumentParser:
    """Options of every command that speaks to a broker."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--broker", default=os.environ.get("QMODD_BROKER", "mqtt://127.0.0.1:1883"), metavar="URL")
    for name, text in (
        ("ca", "certificate of the authority that the broker's must be from (mqtts)"),
        ("certificate", "the client's own certificate for the broker (mqtts)"),
        ("key", "its private key"),
    ):
        default = os.environ.get(f"QMODD_{name.upper()}")
        common.add_argument(f"--{name}", default=default, metavar="FILE", type=Path, help=text)
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
    return common


async def run_status(s: Session) -> int:
    """Status 1 unless all is in order."""
    modules = await s.ctl.status(s.arguments.module)
    if s.as_json:
        sys.stdout.write(json.dumps({"modules": modules}) + "\n")
    elif modules:
        s.out.print(status_view(modules))
    else:
        s.out.print("the broker knows no module")
    return 0 if modules and all(in_order(m) for m in modules) else 1


async def run_alarms(s: Session) -> int:
    return show_alarms(await s.ctl.alarms(s.arguments.module), s.as_json, s.out, s.ctl.clock.utc())


async def run_calibrations(s: Session) -> int:
    if s.arguments.diff or s.arguments.rollback:
        return await LAB["calibrations"](s.desk(), s.arguments)
    return show_calibrations(await s.ctl.calibrations(s.arguments.module), s.as_json, s.out, s.ctl.clock.utc())


async def run_tests(s: Session) -> int:
    if s.arguments.level is None:
        return show_selftest(await s.ctl.selftest(s.arguments.module), s.arguments, s.out)
    return await run_selftest(s.arguments, s.desk(), lambda: s.ctl.selftest(s.arguments.module))


async def run_lab(s: Session) -> int:
    return await LAB[s.arguments.what](s.desk(), s.arguments)


async def run_sign(s: Session) -> int:
    a = s.arguments
    request = await s.ctl.sign(s.client(), a.module, a.command, parse_arguments(a.arguments))
    sys.stdout.write(request.model_dump_json() + "\n")
    return 0


async def run_do(s: Session) -> int:
    """Status 1 when it is refused."""
    a = s.arguments
    reply = await s.ctl.do(s.client(), a.module, a.command, parse_arguments(a.arguments))
    return _show_reply(reply, s.as_json, s.out)


async def _monitors(s: Session) -> int:
    return await run_monitors(s.arguments, s.desk())


async def _optimise(s: Session) -> int:
    from qmodd.ctl_optimise import run_optimise

    return await run_optimise(s)


# These load numerics, which the others can do without.
SLOW = ("optimise",)
RUN: Mapping[str, Callable[[Session], Coroutine[Any, Any, int]]] = {
    "status": run_status,
    "watch": run_watch,
    "fleet": run_fleet,
    "do": run_do,
    "sign": run_sign,
    "alarms": run_alarms,
    "calibrations": run_calibrations,
    **dict.fromkeys(("lease", "release", "sweep"), run_lab),
    "selftest": run_tests,
    "monitors": _monitors,
    "get": run_get,
    "set": run_set,
    "undo": run_undo,
    "approvals": run_approvals,
    "approve": run_approve,
    "reject": run_reject,
    "keys": run_keys,
    "kpi": run_kpi,
    "optimise": _optimise,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 refused or not in order, 2 wrong usage, 3 not reachable."""
    words = sys.argv[1:] if argv is None else list(argv)
    top = parser(words[0] if words else None)
    arguments = top.parse_args(words)
    if arguments.what == "completion":
        sys.stdout.write(completion(top, arguments.shell))
        return 0
    errors = Console(stderr=True, soft_wrap=True)
    try:
        return asyncio.run(RUN[arguments.what](_session(arguments, errors)))
    except KeyboardInterrupt:
        return 0
    except CtlError as e:
        errors.print(f"qmodctl: {e}", markup=False, highlight=False)
        return e.status
    except (BadKeyFile, ValidationError) as e:
        errors.print(f"qmodctl: {e}", markup=False, highlight=False)
        return 2
    except LinkDown as e:
        errors.print(f"qmodctl: {e}{_hint(arguments)}", markup=False, highlight=False)
        return 3


def _session(arguments: argparse.Namespace, errors: Console) -> Session:
    def progress(p: Progress) -> None:
        errors.print(f"{p.progress:4.0%} {p.text}", markup=False)

    broker = BrokerSettings(url=arguments.broker, ca=arguments.ca, certificate=arguments.certificate, key=arguments.key)
    for name in ("ca", "certificate", "key"):
        path: Path | None = getattr(arguments, name)
        if path is not None and not path.is_file():
            raise CtlError(2, f"--{name} {path}: no such file")
    ctl = Ctl(broker, arguments.timeout, SystemClock(), SystemRandomness(), progress, arguments.local)
    return Session(ctl, arguments, Console(soft_wrap=True), errors)


def _hint(arguments: argparse.Namespace) -> str:
    """What a person may have forgotten."""
    if arguments.local is not None:
        return ""
    if arguments.broker.startswith("mqtts:") and arguments.certificate is None:
        return "; a broker with mTLS wants --ca, --certificate and --key"
    return "; is the broker at --broker or QMODD_BROKER the right one?"


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
