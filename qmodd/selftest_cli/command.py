"""`qmodd selftest`: a module's self-test without the daemon; of a module or an emulated one. Makes and uses golden
modules' files, and checks a test station with one."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from calibration.plot import Figure
from qmodd import __version__
from qmodd.config import Config, ConfigError
from qmodd.selftest.bench import Bench, Production
from qmodd.selftest.blame import suspects
from qmodd.selftest.golden import BadGolden, Golden, Kind, make
from qmodd.selftest.junit import junit
from qmodd.selftest.model import Level, Report
from qmodd.selftest.report_json import as_dict, from_dict
from qmodd.selftest_cli.view import View, show, view

PASSED, FAILED, WRONG, UNREACHABLE = range(4)
# What the chip may be asked to be at, C, and the longest burn-in.
LEAST_C, MOST_C = 15.0, 45.0
MOST_BURN_IN_H = 900.0
_EXAMPLES = """examples:
  qmodd selftest --emulated --side alice --html report.html
  qmodd selftest --config /etc/qmodd/alice.toml --level light-off --junit selftest.xml
  qmodd selftest --emulated --side bob --golden-from 20 --write-golden bob.golden.json
  qmodd selftest --config /etc/qmodd/bob.toml --golden bob.golden.json
  qmodd selftest --config /etc/qmodd/bob.toml --level production --burn-in-hours 48 --html certificate.html
"""


def add_parser(subparsers: Any) -> None:
    p = subparsers.add_parser(
        "selftest",
        help="a module's self-test without the daemon",
        description="Runs every check of a level and of those before it, and says which part is broken. Stop the "
        "daemon first. Status 1: a value is out of its limits, 3: no device answers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "reports", nargs="*", type=Path, metavar="REPORT", help="with --write-golden: JSON reports to make it from"
    )
    where = p.add_mutually_exclusive_group()
    where.add_argument("--config", type=Path, metavar="FILE", help="TOML file of the module")
    where.add_argument("--emulated", action="store_true", help="an emulated module in simulated time, from power-on")
    p.add_argument("--level", choices=[level.value for level in Level], default="light-on", help="default light-on")
    p.add_argument("--side", choices=("alice", "bob"), help="with --emulated: which module (default alice)")
    p.add_argument("--seed", type=int, metavar="K", help="with --emulated: which individual (default 1)")
    p.add_argument("--scenario", type=Path, metavar="FILE", help="with --emulated: scenario TOML")
    p.add_argument("--repeat", type=int, default=1, metavar="N", help="test N times; the last report is told")
    p.add_argument(
        "--temperatures", type=_temperatures, metavar="C,C,...", help="production level: chip at these (25,30,35)"
    )
    p.add_argument("--burn-in-hours", type=float, metavar="H", help="production level: hours of burn-in (24)")
    p.add_argument("--golden", type=Path, metavar="FILE", help="hold the values against a golden module")
    p.add_argument("--station-check", action="store_true", help="check the station with the unit of --golden")
    p.add_argument("--write-golden", type=Path, metavar="FILE", help="make a golden module's file")
    p.add_argument("--golden-from", type=int, metavar="N", help="with --emulated: N individuals from --seed on")
    p.add_argument("--junit", type=Path, metavar="FILE", help="write the report as JUnit XML")
    p.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page (plots: extra `report`)")
    p.add_argument("--json", action="store_true", help="one JSON object as the last line on stdout")
    p.set_defaults(run=command)


def _temperatures(text: str) -> tuple[float, ...]:
    found = tuple(float(part) for part in text.split(","))
    if not found or not all(LEAST_C <= c <= MOST_C for c in found):
        raise argparse.ArgumentTypeError(f"{text}: {LEAST_C:g} to {MOST_C:g} C are allowed")
    return found


@dataclass
class Done:
    """Reports in the order in which they were made, and the curves of the last."""

    reports: list[Report] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)

    def keep(self, bench: Bench) -> None:
        self.figures = dict(bench.figures)


def command(args: argparse.Namespace) -> int:
    """Exit status: 0 passed, 1 failed, 2 wrong usage or configuration, 3 hardware not reachable."""
    errors = Console(stderr=True)
    try:
        _check_usage(args)
        golden = Golden.load(args.golden) if args.golden else None
        if args.reports:
            _write_golden(args, [_read(path) for path in args.reports], None, errors)
            return PASSED
        with view(errors) as shown:
            done = _emulated(args, shown) if args.emulated else _module(args, shown)
        return _finish(args, done, golden, errors)
    except (ConfigError, BadGolden) as e:
        errors.print(f"qmodd selftest: {e}", markup=False, highlight=False, soft_wrap=True)
        return WRONG


def _check_usage(args: argparse.Namespace) -> None:
    """Raises ConfigError for options that do not go together."""
    if args.reports and (args.config or args.emulated or not args.write_golden):
        raise ConfigError("reports go with --write-golden alone")
    if not (args.reports or args.config or args.emulated):
        raise ConfigError("which module? give --config FILE or --emulated")
    alone = {"--side": args.side, "--seed": args.seed, "--scenario": args.scenario, "--golden-from": args.golden_from}
    if not args.emulated and (given := [name for name, value in alone.items() if value is not None]):
        raise ConfigError(f"{', '.join(given)} goes with --emulated")
    if args.station_check and not args.golden:
        raise ConfigError("--station-check needs the unit's file: --golden FILE")
    if args.golden_from is not None and (args.golden_from < 1 or not args.write_golden):
        raise ConfigError("--golden-from N needs N of at least 1 and --write-golden FILE")
    of_production = {"--temperatures": args.temperatures, "--burn-in-hours": args.burn_in_hours}
    if args.level != Level.PRODUCTION and (given := [n for n, value in of_production.items() if value is not None]):
        raise ConfigError(f"{', '.join(given)} goes with --level production")
    if args.burn_in_hours is not None and not 0.0 < args.burn_in_hours <= MOST_BURN_IN_H:
        raise ConfigError(f"--burn-in-hours {args.burn_in_hours:g}: above 0 and at most {MOST_BURN_IN_H:g} is allowed")
    if args.repeat < 1:
        raise ConfigError(f"--repeat {args.repeat}: at least 1 is allowed")


def _production(args: argparse.Namespace) -> Production:
    given = Production()
    if args.temperatures is not None:
        given = replace(given, temperatures_c=args.temperatures)
    if args.burn_in_hours is not None:
        given = replace(given, burn_in_h=args.burn_in_hours)
    return given


def _finish(args: argparse.Namespace, done: Done, golden: Golden | None, errors: Console) -> int:
    from qmodd.selftest_cli.session import unreachable

    if args.write_golden:
        kind: Kind | None = "population" if args.golden_from is not None else None
        _write_golden(args, done.reports, kind, errors)
    report = done.reports[-1]
    if golden is not None:
        report = _held_against(golden, report, args.station_check, errors)
    _write(args, report, done.figures)
    show(report, errors)
    if args.json:
        sys.stdout.write(json.dumps(as_dict(report)) + "\n")
    if unreachable(report):
        return UNREACHABLE
    return PASSED if report.passed else FAILED


def _held_against(golden: Golden, report: Report, station: bool, errors: Console) -> Report:
    """With z of every value; a check of the station instead where that is wanted."""
    if changed := golden.changed_limits(report):
        errors.print(
            f"limits of {len(changed)} values are not those of the golden module's file, such as {changed[0]}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if not station:
        return golden.applied(report)
    findings = golden.station(report)
    if not findings:
        raise BadGolden("the file and the report have no measured value in common")
    return replace(report, findings=tuple(findings), suspects=suspects(findings))


def _write(args: argparse.Namespace, report: Report, figures: dict[str, Figure]) -> None:
    if args.junit is not None:
        args.junit.write_text(junit(report), encoding="utf-8")
    if args.html is not None:
        from qmodd.selftest.page import page

        args.html.write_text(page(report, figures), encoding="utf-8")


def _write_golden(args: argparse.Namespace, reports: Sequence[Report], kind: Kind | None, errors: Console) -> None:
    golden = make(reports, reports[-1].taken if reports else "", __version__, kind)
    golden.save(args.write_golden)
    what = f"{len(golden.values)} values of {len(reports)} reports"
    errors.print(f"golden module of {what}: {args.write_golden}", markup=False, highlight=False, soft_wrap=True)


def _read(path: Path) -> Report:
    """Raises BadGolden, naming the file."""
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8").splitlines()[-1]))
    except OSError as e:
        raise BadGolden(f"{path}: cannot be read: {e.strerror}") from None
    except (ValueError, IndexError) as e:
        raise BadGolden(f"{path}: {e}") from None


def _emulated(args: argparse.Namespace, shown: View) -> Done:
    from qmodd.selftest_cli.emulated import Listening, selftest_module
    from sim.scenario import Scenario, ScenarioError

    try:
        scenario = Scenario.from_toml(args.scenario) if args.scenario else Scenario()
    except ScenarioError as e:
        raise ConfigError(str(e)) from None
    done, first = Done(), scenario.seed if args.seed is None else args.seed
    told = Listening(shown.say, shown.progress, done.keep, done.reports.append)
    side, level, production = args.side or "alice", Level(args.level), _production(args)
    for seed in range(first, first + (args.golden_from or 1)):
        if args.golden_from is not None:
            shown.say(f"individual of seed {seed}")
        selftest_module(side, scenario, level, seed=seed, repeat=args.repeat, told=told, production=production)
    return done


def _module(args: argparse.Namespace, shown: View) -> Done:
    from qmodd.config import load
    from qmodd.daemon import check_drivers, only_core

    config = load(args.config)
    check_drivers(config, args.config)
    try:
        with only_core(config.module.state_dir):
            return asyncio.run(_on_hardware(config, args, shown))
    except ConfigError as e:
        raise ConfigError(
            f"{e}: stop it first, or ask it: qmodctl do {config.module.serial} selftest level={args.level}"
        ) from None


async def _on_hardware(config: Config, args: argparse.Namespace, shown: View) -> Done:
    from qmodd.calibrate.session import hardware_core

    done = Done()
    for number in range(args.repeat):
        if args.repeat > 1:
            shown.say(f"{number + 1} of {args.repeat}")
        core = hardware_core(config)
        try:
            done.reports.append(await on_core(core, Level(args.level), shown, done, _production(args)))
        finally:
            core.close()
    return done


async def on_core(core: Any, level: Level, shown: View, done: Done, production: Production | None = None) -> Report:
    """One test of a module whose core is built and does not run."""
    from qmodd.selftest.catalogue import CHECKS
    from qmodd.selftest_cli.session import examine_module

    told: dict[str, Any] = {"say": shown.say, "progress": shown.progress, "on_bench": done.keep}
    return await examine_module(core, level, CHECKS, **told, production=production)
