"""Commands of `qmodctl` for the photonics engineer: leases, sweeps with their raw data, calibration records."""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from calibration.units import unit_of
from qmodd.ctl_errors import CtlError
from qmodd.messages import CalibrationRecord, Reply
from qmodd.report.text import quantity, seconds

# A lease is renewed at a third of the silence after which the module would take the output back.
HEARTBEAT_S, RENEW_S = 30.0, 10.0
Ask = Callable[[str, dict[str, Any]], Awaitable[Reply]]


@dataclass(frozen=True)
class Desk:
    """How a command asks its module and shows what it has learned."""

    send: Ask
    as_json: bool
    out: Console

    async def ask(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The result of a request. Raises CtlError with the module's reason when it is refused."""
        reply = await self.send(command, arguments)
        if reply.ok:
            return dict(reply.result or {})
        error = reply.error
        raise CtlError(1, f"{command} refused ({error.code}): {error.message}" if error else f"{command} refused")

    def show(self, found: Mapping[str, Any], text: str) -> int:
        if self.as_json:
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()
        else:
            self.out.print(text, markup=False, highlight=False)
        return 0


def add_lab_parsers(commands: Any, common: argparse.ArgumentParser) -> None:
    """Parsers of this file's commands."""
    lease = commands.add_parser(
        "lease",
        parents=[common],
        help="borrow an output from its loop until Ctrl-C",
        epilog="example: qmodctl lease QM-B-0001 heater.phase",
    )
    release = commands.add_parser(
        "release", parents=[common], help="give it back", epilog="example: qmodctl release QM-B-0001 heater.phase"
    )
    sweep = commands.add_parser(
        "sweep",
        parents=[common],
        help="sweep an output and read beside it",
        epilog="example: qmodctl sweep QM-A-0001 heater.filter --from 0 --to 0.02 --points 41 "
        "--read photocurrent.pa0,photocurrent.pa1 --csv filter.csv",
    )
    for one in (lease, release, sweep):
        one.add_argument("module")
        one.add_argument("output", help="such as heater.phase, bias.voa, laser.power, tec.target, detector.DZ")
    for one in (lease, sweep):
        one.add_argument("--seconds", type=float, default=600.0, metavar="S", help="at most so long, default 600")
    _sweep_options(sweep)
    records = commands.add_parser(
        "calibrations",
        parents=[common],
        help="calibration records",
        epilog="example: qmodctl calibrations QM-B-0001 --diff arm_phase:1 arm_phase:2",
    )
    records.add_argument("module")
    records.add_argument("--diff", nargs=2, metavar=("A", "B"), help="two records, NAME:VERSION each")
    records.add_argument("--rollback", metavar="NAME", help="back to the record before the active one")


def _sweep_options(sweep: argparse.ArgumentParser) -> None:
    sweep.add_argument("--from", dest="start", type=float, required=True, metavar="X", help="in the output's unit")
    sweep.add_argument("--to", dest="stop", type=float, required=True, metavar="X", help="in the output's unit")
    sweep.add_argument("--points", type=int, default=21, metavar="N", help="both ends included, default 21")
    sweep.add_argument("--settle", type=float, default=0.05, metavar="S", help="wait after each, default 0.05")
    sweep.add_argument("--read", default="", metavar="A,B", help="readings beside it, such as photocurrent.pa0")
    sweep.add_argument("--csv", type=Path, metavar="FILE", help="write the raw data here, else to stdout")
    sweep.add_argument("--stay", action="store_true", help="leave the output at the last value")
    sweep.add_argument("--keep", action="store_true", help="keep the lease; it ends when it is not renewed")


async def lease(desk: Desk, arguments: argparse.Namespace) -> int:
    """Hold a lease: renew it until its time is over or the command is ended, then give it back."""
    wanted = {"output": arguments.output, "seconds": arguments.seconds, "heartbeat_s": HEARTBEAT_S}
    found = await desk.ask("lease", wanted)
    desk.show(found, _told(found))
    left = arguments.seconds
    try:
        while left > RENEW_S:
            await asyncio.sleep(RENEW_S)
            left -= RENEW_S
            await desk.ask("lease", {**wanted, "seconds": max(1.0, left)})
        await asyncio.sleep(left)
    finally:
        # The command may have been cancelled by Ctrl-C: the output goes back all the same.
        await asyncio.shield(_given_back(desk, arguments.output))
    return 0


def _told(found: Mapping[str, Any]) -> str:
    lines = [
        f"{x['output']} is yours: {x['value']:g} {x['unit']}, {x['low']:g} to {x['high']:g} {x['unit']} is allowed"
        + ("; no keys are made meanwhile" if x["keys_stop"] else "")
        for x in found["leases"]
    ]
    return "\n".join([*lines, "Ctrl-C gives it back"])


async def _given_back(desk: Desk, output: str) -> None:
    try:
        found = await desk.ask("release", {"output": output})
    except CtlError as e:
        if "not_leased" not in str(e):
            raise
        return  # its time was over, and the module has taken it back
    desk.show(found, _released(found))


def _released(found: Mapping[str, Any]) -> str:
    return "\n".join(f"{x['output']} given back; owner now {x['owner']}" for x in found["released"])


async def release(desk: Desk, arguments: argparse.Namespace) -> int:
    found = await desk.ask("release", {"output": arguments.output})
    return desk.show(found, _released(found))


async def sweep(desk: Desk, arguments: argparse.Namespace) -> int:
    """Lease, sweep, give back; raw data as CSV."""
    read = [r for r in arguments.read.split(",") if r]
    await desk.ask("lease", {"output": arguments.output, "seconds": arguments.seconds, "heartbeat_s": HEARTBEAT_S})
    try:
        found = await desk.ask(
            "sweep",
            {
                "output": arguments.output,
                "from": arguments.start,
                "to": arguments.stop,
                "points": arguments.points,
                "settle": arguments.settle,
                "read": read,
                "stay": arguments.stay,
            },
        )
    finally:
        if not arguments.keep:
            await desk.ask("release", {"output": arguments.output})
    if arguments.csv is not None:
        text = io.StringIO()
        _write(text, found)
        arguments.csv.write_text(text.getvalue(), encoding="utf-8")
        return desk.show({**found, "csv": str(arguments.csv)}, f"{len(found['rows'])} points in {arguments.csv}")
    if desk.as_json:
        return desk.show(found, "")
    _write(sys.stdout, found)
    return 0


def _write(file: Any, found: Mapping[str, Any]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([f"{c['name']} ({c['unit']})" for c in found["columns"]])
    writer.writerows(found["rows"])


async def calibrations(desk: Desk, arguments: argparse.Namespace) -> int:
    """Compare two records, or roll one back."""
    if arguments.rollback:
        found = await desk.ask("rollback", {"calibration": arguments.rollback})
        return desk.show(found, f"{arguments.rollback}: version {found['version']} is active")
    a, b = [await desk.ask("record", _chosen(text)) for text in arguments.diff]
    rows = differences(a, b)
    if desk.as_json:
        return desk.show({"a": _named(a), "b": _named(b), "differences": rows}, "")
    table = Table(box=None, pad_edge=False, header_style="bold", title=f"{_named(a)} and {_named(b)}")
    for column in ("value", "a", "b", "b - a", "unit", "sigmas"):
        table.add_column(column, justify="left" if column in ("value", "unit") else "right")
    for r in rows:
        sigmas = "" if r["sigmas"] is None else f"{r['sigmas']:.1f}"
        table.add_row(r["name"], _number(r["a"]), _number(r["b"]), _number(r["change"]), r["unit"], sigmas)
    desk.out.print(table)
    return 0


def _chosen(text: str) -> dict[str, Any]:
    name, _, version = text.partition(":")
    if not version:
        return {"calibration": name}
    if not version.isdecimal():
        raise CtlError(2, f"{text!r} is not NAME:VERSION, such as arm_phase:2")
    return {"calibration": name, "version": int(version)}


def _named(record: Mapping[str, Any]) -> str:
    return f"{record['name']}:{record['version']}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every value of two records: both, the change, and the change in standard uncertainties where both have one."""
    rows = []
    for name in dict.fromkeys([*a["value"], *b["value"]]):
        x, y = a["value"].get(name), b["value"].get(name)
        sigma = (a["sigma"].get(name, 0.0) ** 2 + b["sigma"].get(name, 0.0) ** 2) ** 0.5
        change = None if x is None or y is None else y - x
        rows.append(
            {
                "name": name,
                "a": x,
                "b": y,
                "change": change,
                "unit": unit_of(name),
                "sigmas": change / sigma if change is not None and sigma > 0.0 else None,
            }
        )
    return rows


def show_calibrations(records: Mapping[str, CalibrationRecord], as_json: bool, out: Console, now: datetime) -> int:
    """Active records. Status 1 when one of them may not be used any more."""
    if as_json:
        found = [json.loads(r.payload()) for r in records.values()]
        sys.stdout.write(json.dumps({"calibrations": found}) + "\n")
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("calibration", "version", "age", "valid for", "first value", "state"):
            table.add_column(column, justify="right" if column in ("version", "age", "valid for") else "left")
        for r in records.values():
            table.add_row(r.name, str(r.version), _since(r.taken, now), _left(r, now), _first(r), _state(r, now))
        out.print(table)
    return 0 if all(_good(r, now) for r in records.values()) else 1


def _good(r: CalibrationRecord, now: datetime) -> bool:
    return not r.invalid and (r.valid_until is None or r.valid_until > now)


def _since(then: datetime, now: datetime) -> str:
    return seconds(max(0.0, (now - then).total_seconds()))


def _left(r: CalibrationRecord, now: datetime) -> str:
    if r.valid_until is None:
        return "-"
    left = (r.valid_until - now).total_seconds()
    return seconds(left) if left > 0.0 else "over"


def _first(r: CalibrationRecord) -> str:
    for name, value in r.value.items():
        if isinstance(value, int | float):
            shown, sigma, unit = quantity(float(value), r.sigma.get(name, 0.0), unit_of(name))
            return f"{name} {shown}{' ± ' + sigma if sigma else ''} {unit}".strip()
    return ""


def _state(r: CalibrationRecord, now: datetime) -> Text:
    if r.invalid:
        return Text(f"invalid: {r.invalid}", style="red")
    return Text("good", style="green") if _good(r, now) else Text("to be checked", style="yellow")


LAB: Mapping[str, Callable[[Desk, argparse.Namespace], Awaitable[int]]] = {
    "lease": lease,
    "release": release,
    "sweep": sweep,
    "calibrations": calibrations,
}
