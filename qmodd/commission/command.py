"""`qmodd commission`: is this pair fit for service, as one HTML file; of running modules, or of an emulated pair."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from qmodd.commission.findings import MOST_LOSS_DB, Pair

DONE, NOT_FIT, WRONG, UNREACHABLE = 0, 1, 2, 3
TOPICS = ("state", "assembly", "selftest", "calibration/+", "alarm/+", "event")
_EXAMPLES = """examples:
  qmodd commission --emulated --html commissioning.html
  qmodd commission --config /etc/qmodd/alice.toml --html commissioning.html --max-loss-db 12
"""


def add_parser(subparsers: Any) -> None:
    p = subparsers.add_parser(
        "commission",
        help="is a pair fit for service: identity, link loss, self-test, first lock, first keys",
        description="Listens to both modules on the broker of a module's configuration (--local: to that module alone, "
        "over its socket) until every gate is known, or for --wait seconds. Status 1: a gate is not passed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = p.add_mutually_exclusive_group(required=True)
    where.add_argument("--config", type=Path, metavar="FILE", help="TOML file of one of the modules, which run")
    where.add_argument("--emulated", action="store_true", help="an emulated pair in simulated time, from power-on")
    p.add_argument("--local", action="store_true", help="with --config: over core's local socket, without a broker")
    p.add_argument("--wait", type=float, default=600.0, metavar="S", help="with --config (default %(default)s)")
    p.add_argument("--scenario", type=Path, metavar="FILE", help="with --emulated: scenario TOML")
    p.add_argument("--seed", type=int, metavar="K", help="with --emulated: which individuals (default 1)")
    p.add_argument("--max-loss-db", type=float, default=MOST_LOSS_DB, metavar="DB", help="gate (default %(default)s)")
    p.add_argument("--html", type=Path, metavar="FILE", help="write the report here")
    p.add_argument("--json", action="store_true", help="one JSON object as the last line on stdout")
    p.set_defaults(run=command)


def command(args: argparse.Namespace) -> int:
    """Exit status: 0 fit for service, 1 not, or not complete, 2 wrong usage or configuration, 3 not reachable."""
    from qmodd.clock import SystemClock
    from qmodd.commission.page import page
    from qmodd.config import ConfigError
    from qmodd.uplink.mqtt_link import LinkDown
    from sim.scenario import ScenarioError

    try:
        pair, what = _emulated(args) if args.emulated else _running(args)
    except (ConfigError, ScenarioError) as e:
        return _fail(str(e), WRONG)
    except LinkDown as e:
        return _fail(str(e), UNREACHABLE)
    if args.html is not None:
        args.html.write_text(page(pair, what, SystemClock().utc()), encoding="utf-8")
    for gate in pair.gates():
        word = {True: "passed", False: "NOT PASSED", None: "open"}[gate.ok]
        sys.stderr.write(f"{gate.name:28} {word:10} {gate.read} ({gate.limit})\n")
    if args.json:
        sys.stdout.write(json.dumps(pair.as_dict()) + "\n")
    return DONE if pair.passed() else NOT_FIT


def _emulated(args: argparse.Namespace) -> tuple[Pair, str]:
    from qmodd.commission.emulated import commission_emulated, light_on_tests
    from sim.scenario import Scenario

    scenario = Scenario.from_toml(args.scenario) if args.scenario else Scenario()
    if args.seed is not None:
        scenario = scenario.model_copy(update={"seed": args.seed})
    pair = commission_emulated(scenario, args.max_loss_db, _say)
    light_on_tests(pair, scenario, _say)
    return pair, f"emulated pair, seed {scenario.seed}, in simulated time; its receiver looks at 1 % of the time only"


def _running(args: argparse.Namespace) -> tuple[Pair, str]:
    from qmodd.config import load
    from qmodd.daemon import local_path

    config = load(args.config)
    local = local_path(config) if args.local else None
    serials = (config.module.serial, config.pair.peer_serial)
    pair = asyncio.run(listen(config.uplink.broker, local, serials, args.max_loss_db, args.wait))
    return pair, f"running modules, heard at {local or config.uplink.broker}"


async def listen(broker: str, local: Path | None, serials: tuple[str, ...], most_loss_db: float, wait_s: float) -> Pair:
    """Until every gate is known, at most `wait_s`. Raises LinkDown."""
    from qmodd.clock import SystemClock
    from qmodd.local_link import open_local
    from qmodd.messages import ROOT
    from qmodd.randomness import SystemRandomness
    from qmodd.uplink.mqtt_link import BrokerSettings, open_link
    from qmodd.uplink.topics import module_of

    clock, pair = SystemClock(), Pair(most_loss_db=most_loss_db)
    begin = clock.monotonic()
    name = f"qmodd-commission-{SystemRandomness().bytes(6).hex()}"
    async with AsyncExitStack() as stack:
        opened = open_local(local) if local is not None else open_link(BrokerSettings(url=broker), name)
        link: Any = await stack.enter_async_context(opened)
        await link.subscribe(*(f"{ROOT}/{serial}/{topic}" for serial in serials for topic in TOPICS))
        try:
            async with asyncio.timeout(wait_s):
                while not pair.complete():
                    message = await link.next_message()
                    serial = module_of(message.topic)
                    if serial is not None:
                        suffix = message.topic.removeprefix(f"{ROOT}/{serial}/")
                        pair.take(serial, suffix, message.payload, clock.monotonic() - begin)
        except TimeoutError:
            _say(f"not complete after {wait_s:g} s")
    return pair


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _fail(text: str, status: int) -> int:
    sys.stderr.write(f"qmodd commission: {text}\n")
    return status
