"""`qmodd sim` serves an emulated pair of modules; `qmodd sim exec` runs a daemon with its buses served from there."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.scenario import Scenario
    from sim.world import World

EXIT_USAGE = 2
TRUTH_S = 1.0
# The server polls every 10 ms; a longer pause than this is one of its process.
STALL_S = 0.1
MODULES = ("alice", "bob")
_EXAMPLES = """examples:
  qmodd sim --scenario configs/demo.toml --run-dir /tmp/pair
  qmodd sim exec --module alice --run-dir /tmp/pair -- qmodd core --config alice.toml
"""


def default_run_dir() -> Path:
    """Where a world serves when nothing else is said: one a user."""
    return Path(os.environ.get("XDG_RUNTIME_DIR", f"/tmp/qmodd-{os.getuid()}")) / "qmodd-sim"


def add_parser(subparsers: Any) -> None:
    """Add `sim` and `sim exec` to the subparsers of `qmodd`."""
    parser = subparsers.add_parser(
        "sim",
        help="the emulator: both modules' electronics and the optics between them",
        description="Serves the emulated pair until SIGTERM and prints the endpoints. `qmodd sim exec -- CMD` runs a "
        "program with its /dev/i2c-*, /dev/spidev* and serial settings served by a running emulator.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scenario", type=Path, metavar="FILE", help="scenario in TOML; the default pair without it")
    parser.add_argument("--speed", type=_speed, default=1.0, metavar="X", help="world seconds a second (default 1)")
    parser.add_argument("--run-dir", type=Path, default=default_run_dir(), metavar="D", help="default %(default)s")
    parser.add_argument("--seed", type=_seed, metavar="K", help="overrides the scenario's seed")
    parser.add_argument("--json", action="store_true", help="endpoints as one JSON object on stdout")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="append the world's true phase error and QBER here")
    parser.set_defaults(run=run, sim_command="serve")
    _add_exec(parser)


def run(args: argparse.Namespace) -> int:
    """Exit status: 0 stopped by a signal, 1 the directory is served already, 2 wrong scenario; exec: the program's."""
    if args.sim_command == "exec":
        return _exec(args)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    from sim.scenario import ScenarioError
    from sim.server.world_server import AlreadyServed

    try:
        scenario = load_scenario(args.scenario, args.seed)
        asyncio.run(_serve(scenario, args.run_dir.absolute(), args.speed, as_json=args.json, truth=args.truth))
    except ScenarioError as e:
        _tell(str(e))
        return EXIT_USAGE
    except (AlreadyServed, OSError) as e:
        _tell(f"qmodd sim: {e}")
        return 1
    return 0


def load_scenario(path: Path | None, seed: int | None) -> Scenario:
    """The scenario to serve. Raises sim.scenario.ScenarioError."""
    from sim.scenario import Scenario

    scenario = Scenario() if path is None else Scenario.from_toml(path)
    return scenario if seed is None else scenario.model_copy(update={"seed": seed})


def compile_kernels(scenario: Scenario) -> None:
    """Run a world of the same kind for a few hundredths of a second.

    Compiling on first use would keep the buses silent for seconds, which a daemon takes for a broken bus.
    """
    from sim.clock import ManualClock
    from sim.world import World

    clock = ManualClock()
    world = World(scenario, clock)
    world.alice.set_laser_enable(True)
    world.alice.set_laser(True, 193.4145e12, 10.0)
    world.alice.source.start_run()
    world.alice.source.schedule(0, "KEY")
    world.bob.tagger.start()
    for clock.t in (0.02, 0.25):
        world.light()
        world.bob.tagger.collect()


async def _serve(scenario: Scenario, run_dir: Path, speed: float, *, as_json: bool, truth: Path | None) -> None:
    from sim.clock import RealClock
    from sim.individuals import factory_record
    from sim.rig import build_rigs
    from sim.server.world_server import serve
    from sim.world import World

    compile_kernels(scenario)
    clock = RealClock(speed)
    world = World(scenario, clock)
    rigs = build_rigs(world, clock)
    for rig in rigs.values():
        rig.watchdog.stall_s = STALL_S * speed
    factory = {port.name: factory_record(port.individual, scenario.seed) for port in (world.alice, world.bob)}

    def ready(endpoints: dict[str, Any]) -> None:
        if as_json:
            sys.stdout.write(json.dumps(endpoints) + "\n")
            sys.stdout.flush()
        else:
            _tell(json.dumps(endpoints, indent=2))
            _tell(f"serving seed {scenario.seed} at {scenario.link.loss_db:g} dB in {run_dir}; SIGTERM ends it")

    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):  # how serving ends
        try:
            async with asyncio.TaskGroup() as group:
                if truth is not None:
                    group.create_task(_write_truth(world, truth), name="truth")
                await serve(world, rigs, run_dir, clock, speed=speed, factory=factory, ready=ready)
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None


async def _write_truth(world: World, path: Path) -> None:
    """For a report that compares with the truth afterwards; no daemon knows where this file is."""
    from sim.truth import Truth

    view = Truth(world)
    with _appending(path) as file:
        while True:
            await asyncio.sleep(TRUTH_S)
            now = view.snapshot()
            entry = {"t": now.t, "phase_error_deg": now.phase_error_deg, "qber_z": now.qber_z, "qber_x": now.qber_x}
            file.write(json.dumps(entry) + "\n")
            file.flush()


def _appending(path: Path) -> IO[str]:
    return open(path, "a", encoding="utf-8")


def _add_exec(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="sim_command", metavar="exec", required=False)
    run_it = sub.add_parser("exec", help="run a program with its buses served by a running emulator")
    run_it.add_argument("--module", choices=MODULES, required=True, help="whose buses")
    # Without a default of its own, or it would overrule `qmodd sim --run-dir D exec`.
    run_it.add_argument("--run-dir", type=Path, default=argparse.SUPPRESS, metavar="D", help="as the emulator's")
    run_it.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD", help="the program and its arguments")
    run_it.set_defaults(run=run)


def _exec(args: argparse.Namespace) -> int:
    from sim.server.endpoints import BAUDS, bus_path, serial_path
    from sim.server.seccomp.supervisor import BUS_PATTERNS, exec_supervised

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        _tell("qmodd sim exec: a program is missing after --")
        return EXIT_USAGE
    run_dir = args.run_dir.absolute()
    lines = [str(serial_path(run_dir, args.module, name)) for name in BAUDS]
    return exec_supervised(command, args.module, bus_path(run_dir, args.module), [*BUS_PATTERNS, *lines])


def _speed(text: str) -> float:
    value = float(text)
    if not 0.01 <= value <= 1000.0:
        raise argparse.ArgumentTypeError("0.01 to 1000 is possible")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError("0 to 2**63 - 1 is possible")
    return value


def _tell(message: str) -> None:
    sys.stderr.write(message + "\n")
