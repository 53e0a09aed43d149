"""The `qmodd` command. Each subcommand lives beside what it starts; nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from qmodd import __version__

# name -> module with `add_parser(subparsers)`; a parser sets `run`, which returns the exit status.
COMMANDS = {
    "core": "qmodd.daemon",
    "uplink": "qmodd.daemon",
    "run": "qmodd.daemon",
    "receive": "qmodd.receive",
    "kme": "qmodd.kme.command",
    "provision": "qmodd.provision",
    "pki": "qmodd.pki",
    "sim": "qmodd.sim_cli",
    "demo": "qmodd.demo.command",
    "soak": "qmodd.soak",
    "calibrate": "qmodd.calibrate.command",
    "selftest": "qmodd.selftest_cli.command",
    "fru": "qmodd.fru_cli",
    "safe-outputs": "qmodd.safe_outputs",
    "commission": "qmodd.commission.command",
    "rate": "qmodd.rate.command",
    "bench": "qmodd.bench_cli",
    "schema": "qmodd.schema.command",
}
DESCRIPTION = (
    "Control daemon of photonic-chip QKD modules. Exit status: 0 done, 1 what was checked is not in order, "
    "2 wrong usage or configuration, 3 hardware not reachable."
)


def parser(commands: Sequence[str]) -> argparse.ArgumentParser:
    """A parser for the given subcommands; all of them for the help, one for running it (imports take time)."""
    top = argparse.ArgumentParser(prog="qmodd", description=DESCRIPTION)
    top.add_argument("--version", action="version", version=f"qmodd {__version__}")
    sub = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in dict.fromkeys(COMMANDS[name] for name in commands):
        importlib.import_module(module).add_parser(sub)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = next((a for a in arguments if not a.startswith("-")), "")
    chosen = [first] if first in COMMANDS else list(COMMANDS)
    args = parser(chosen).parse_args(arguments)
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    sys.exit(main())
