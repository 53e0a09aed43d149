"""`qmodd calibrate`: calibrations that are due, or named ones, without the daemon; on a module or an emulated pair."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from calibration.graph import Graph
from calibration.plan import Due, plan
from calibration.procedures import alice_graph, bob_graph
from qmodd.calibrate.view import View, plan_table, view
from qmodd.calibrate.walk import DONE, REFUSED, WRONG, Outcome, Walk
from qmodd.config import Config, ConfigError

GRAPHS = {"alice": alice_graph, "bob": bob_graph}
_EXAMPLES = """examples:
  qmodd calibrate --emulated --html report.html
  qmodd calibrate --config /etc/qmodd/alice.toml --plan
  qmodd calibrate --config /etc/qmodd/alice.toml mean_photon --force
"""


def add_parser(subparsers: Any) -> None:
    p = subparsers.add_parser(
        "calibrate",
        help="calibrations that are due, or named, without the daemon",
        description="Makes good what is out, and what rests on it; with TARGET only that and what it rests on. Stop "
        "the daemon first. A receiver without a transmitter's light leaves what needs it waiting. Status 1: a "
        "calibration was refused; its diagnosis is printed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("targets", nargs="*", metavar="TARGET", help="a calibration; default: all")
    where = p.add_mutually_exclusive_group(required=True)
    where.add_argument("--config", type=Path, metavar="FILE", help="TOML file of the module")
    where.add_argument("--emulated", action="store_true", help="an emulated pair in simulated time, from power-on")
    p.add_argument("--seed", type=int, metavar="K", help="with --emulated: which individuals (default 1)")
    p.add_argument("--scenario", type=Path, metavar="FILE", help="with --emulated: scenario TOML")
    p.add_argument("--force", action="store_true", help="redo the targets although they are good")
    p.add_argument("--plan", action="store_true", help="only show what is due, why, what it disturbs and takes")
    p.add_argument("--html", type=Path, metavar="FILE", help="write a report with plots (extra `report`)")
    p.add_argument("--json", action="store_true", help="one JSON object as the last line on stdout")
    p.set_defaults(run=command)


@dataclass
class Result:
    """What is reported: walks by side, or only plans; `failed` says what ended the work early, with its status."""

    walks: dict[str, Walk] = field(default_factory=dict)
    plans: dict[str, list[Due]] = field(default_factory=dict)
    serials: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    failed: str = ""
    status: int = DONE

    def outcomes(self) -> list[tuple[str, Outcome]]:
        return [(side, o) for side, walk in self.walks.items() for o in walk.outcomes.values()]

    def exit_status(self) -> int:
        if self.status != DONE:
            return self.status
        return REFUSED if any(o.state in ("refused", "waiting") for _, o in self.outcomes()) else DONE

    def as_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "records": [o.as_dict(side) for side, o in self.outcomes() if o.record is not None],
            "refused": [
                {"side": side, "name": o.name, "state": o.state, "why": o.why}
                for side, o in self.outcomes()
                if o.state in ("refused", "waiting")
            ],
            "seconds": round(self.seconds, 3),
            "ok": self.exit_status() == DONE,
        }
        if self.plans:
            out["plan"] = [{"side": side, **due_dict(d)} for side, plans in self.plans.items() for d in plans]
        if self.failed:
            out["failed"] = self.failed
        return out


def due_dict(due: Due) -> dict[str, Any]:
    """One line of a plan for JSON."""
    return {
        "name": due.name,
        "why": due.why,
        "action": due.action,
        "disturbs": due.disturbs.name.lower(),
        "cost_s": due.cost_s,
    }


def command(args: argparse.Namespace) -> int:
    """Exit status: 0 done, 1 a calibration was refused, 2 wrong usage or configuration, 3 hardware not reachable."""
    errors = Console(stderr=True)
    if args.config is not None and (args.seed is not None or args.scenario is not None):
        return _wrong(errors, "--seed and --scenario go with --emulated")
    if args.html is not None and (missing := _cannot_draw()):
        return _wrong(errors, missing)
    try:
        result = _emulated(args, errors) if args.emulated else _module(args, errors)
    except (ConfigError, LookupError) as e:
        return _wrong(errors, str(e.args[0] if e.args else e))
    _tell(args, result, errors)
    return result.exit_status()


def _wrong(errors: Console, text: str) -> int:
    errors.print(f"qmodd calibrate: {text}", markup=False, highlight=False, soft_wrap=True)
    return WRONG


def _cannot_draw() -> str | None:
    from qmodd.report.svg import NoPlots, ready

    try:
        ready()
    except NoPlots as e:
        return f"--html: {e}"
    return None


def _tell(args: argparse.Namespace, result: Result, errors: Console) -> None:
    if args.html is not None and result.walks:
        from qmodd.report.collect import report_of
        from qmodd.report.page import page

        report = report_of(result.walks, result.serials, result.seconds, "emulated pair" if args.emulated else "module")
        args.html.write_text(page(report), encoding="utf-8")
        errors.print(f"report: {args.html}", markup=False, highlight=False, soft_wrap=True)
    if result.failed:
        errors.print(f"qmodd calibrate: {result.failed}", markup=False, highlight=False, soft_wrap=True)
    elif result.walks:
        errors.print(_summary(result), markup=False, highlight=False, soft_wrap=True)
    if args.json:
        sys.stdout.write(json.dumps(result.as_dict()) + "\n")


def _summary(result: Result) -> str:
    states = [o.state for _, o in result.outcomes()]
    counted = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
    return f"{len(states)} calibrations in {result.seconds:.1f} s from power-on: {counted}"


def _costs(graphs: Mapping[str, Graph]) -> dict[str, dict[str, float]]:
    return {side: {p.name: p.cost_s for p in graph} for side, graph in graphs.items()}


# an emulated pair


def _emulated(args: argparse.Namespace, errors: Console) -> Result:
    from qmodd.calibrate.emulated import Told, calibrate_pair, sides_of
    from sim.scenario import Scenario, ScenarioError

    try:
        scenario = Scenario.from_toml(args.scenario) if args.scenario else Scenario()
    except ScenarioError as e:
        raise ConfigError(str(e)) from None
    if args.seed is not None:
        scenario = scenario.model_copy(update={"seed": args.seed})
    graphs = {side: make() for side, make in GRAPHS.items()}
    force = list(args.targets or {n for g in graphs.values() for n in g.names}) if args.force else []
    sides = sides_of(args.targets)
    if args.plan:
        return _plan_of_a_new_pair(graphs, sides if args.targets else None, errors)
    with (
        tempfile.TemporaryDirectory(prefix="qmodd-calibrate-") as directory,
        view(errors, _costs(graphs)) as shown,
    ):
        pair = calibrate_pair(Path(directory), scenario, Told(shown.show, shown.ended, shown.say), args.targets, force)
        pair.run.close()
    serials = {side: site.core.config.module.serial for side, site in pair.run.sites.items()}
    return Result(pair.walks, serials=serials, seconds=pair.seconds, failed=pair.failed, status=pair.status)


def _plan_of_a_new_pair(graphs: Mapping[str, Graph], sides: dict[str, list[str]] | None, errors: Console) -> Result:
    """Nothing has been calibrated yet, so everything is due."""
    result = Result()
    for side, graph in graphs.items():
        names = graph.names if sides is None else graph.ancestors(sides[side])
        result.plans[side] = [
            Due(p.name, "never calibrated", "calibrate", p.disturbs, p.cost_s, 0.0, p.deferred)
            for p in graph
            if p.name in names
        ]
        if result.plans[side]:
            errors.print(plan_table(side, result.plans[side], graph.names))
    return result


# a module


def _module(args: argparse.Namespace, errors: Console) -> Result:
    from qmodd.config import load
    from qmodd.daemon import check_drivers, only_core

    config = load(args.config)
    check_drivers(config, args.config)
    graph = GRAPHS[config.module.role]()
    if unknown := sorted(set(args.targets) - set(graph.names)):
        raise LookupError(f"no calibration {unknown[0]!r} of {config.module.role}; there are {', '.join(graph.names)}")
    try:
        with only_core(config.module.state_dir):
            return asyncio.run(_on_hardware(config, args, errors))
    except ConfigError as e:
        raise ConfigError(
            f"{e}: stop it first, or ask it: qmodctl do {config.module.serial} calibrate target=NAME"
        ) from None


async def _on_hardware(config: Config, args: argparse.Namespace, errors: Console) -> Result:
    from qmodd.calibrate.session import hardware_core

    core = hardware_core(config)
    try:
        return await calibrate_module(core, args, errors)
    finally:
        core.close()


async def calibrate_module(core: Any, args: argparse.Namespace, errors: Console) -> Result:
    """One module, its core built and not running. What fails is in the result, with the status that says it."""
    from qmodd.calibrate.session import Locked, failure, opened, warm

    config, clock = core.config, core.injected.clock
    role, begun = config.module.role, core.injected.clock.monotonic()
    result = Result(serials={role: config.module.serial})
    force = (args.targets or core.operator.graph().names) if args.force else ()
    try:
        if args.plan:
            result.plans[role] = await _plan(core, args.targets, force)
            errors.print(plan_table(role, result.plans[role], core.operator.graph().names))
            return result
        with view(errors, _costs({role: core.operator.graph()})) as shown:
            async with opened(core, "qmodd calibrate", None, lambda text: shown.say(role, text)) as context:
                await warm(core, lambda text: shown.say(role, text))
                await _walk(result, core.operator.graph(), context, shown, args.targets or None, force)
    except Locked as e:
        result.failed, result.status = str(e), REFUSED
    except Exception as e:
        result.failed, result.status = failure(e)
    result.seconds = clock.monotonic() - begun
    return result


async def _walk(result: Result, graph: Graph, context: Any, shown: View, targets: Any, force: Any) -> None:
    walk = result.walks[context.side] = Walk(context.side, graph, context, shown.show, shown.ended)
    await walk.run(targets, force)


async def _plan(core: Any, targets: list[str], force: Any) -> list[Due]:
    """Only the submount's sensor is asked: its temperature decides what is out."""
    module, graph = core.wiring.module, core.operator.graph()
    context = core.operator.context(module)
    try:
        await module.devices["submount"].open()
        submount_c = await module.submount.read_celsius()
    finally:
        await module.buses.close()
    names = graph.ancestors(targets or graph.names)
    return [d for d in plan(graph, context, submount_c, force=force) if d.name in names]
