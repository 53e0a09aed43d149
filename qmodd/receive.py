"""`qmodd receive`: reference receiver of key batches, the KMS side. What it is made of is in `qmodd.receiver`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sqlite3
import sys
from pathlib import Path

from qmodd.clock import SystemClock
from qmodd.crypto.suites import BadKeyFile
from qmodd.keys.store import StoreRefused
from qmodd.receiver.reading import read_digests, read_states
from qmodd.receiver.receiver import NotBelieved, Receiver
from qmodd.receiver.service import run
from qmodd.receiver.settings import (
    ReceiveSettings,
    SenderSettings,
    SettingsError,
    SinkSettings,
    load_settings,
    open_receiver,
)
from qmodd.receiver.sink import export
from qmodd.receiver.table import STORE_FILE
from qmodd.receiver.window import WINDOW, Window

__all__ = [
    "STORE_FILE",
    "WINDOW",
    "NotBelieved",
    "ReceiveSettings",
    "Receiver",
    "SenderSettings",
    "SettingsError",
    "SinkSettings",
    "Window",
    "load_settings",
    "open_receiver",
    "read_digests",
    "read_states",
    "run",
]
EXPORTED_AT_MOST = 1_000_000


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """`qmodd receive`; the chosen function is in `args.run` and returns the exit status."""
    parser = subparsers.add_parser(
        "receive",
        help="reference receiver of key batches",
        description="Opens key batches of the modules it believes, stores the keys sealed, signs acknowledgements.",
        epilog="example: qmodd receive --config kms-alice.toml",
    )
    parser.add_argument("--config", type=Path, required=True, help="TOML: identity, store, [broker] url, [[sender]]")
    parser.add_argument("--check", action="store_true", help="validate the configuration and exit")
    parser.add_argument("--status", action="store_true", help="tell how many keys are in which state and exit")
    parser.add_argument(
        "--export", type=Path, metavar="FILE", help="hand the usable keys out into a container (ETSI GS QKD 014), exit"
    )
    parser.add_argument("--json", action="store_true", help="counts per status as last line on stdout")
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """0 done (stopped by a signal), 1 keys are not conserved, 2 wrong configuration."""
    try:
        settings = load_settings(args.config)
        receiver = open_receiver(settings, SystemClock())
    except (SettingsError, BadKeyFile, StoreRefused) as e:
        sys.stderr.write(f"{e}\n")
        return 2
    try:
        return _do(args, settings, receiver)
    except (StoreRefused, OSError, sqlite3.Error) as e:
        sys.stderr.write(f"{settings.store}: {e}\n")
        return 2
    finally:
        receiver.close()


def _do(args: argparse.Namespace, settings: ReceiveSettings, receiver: Receiver) -> int:
    if args.check:
        sys.stderr.write(f"{args.config}: in order\n")
        return 0
    if args.export:
        n = export(receiver.hand_out, args.export, EXPORTED_AT_MOST)
        sys.stderr.write(f"{args.export}: {n} keys, handed out with that\n")
        receiver.counts["handed_out"] += n
    elif not args.status:
        asyncio.run(_until_stopped(settings, receiver))
    totals, why = receiver.table.totals(), receiver.table.audit()
    if args.status:
        sys.stderr.write("".join(f"{state:>10} {n}\n" for state, n in totals.items()))
    if why:
        sys.stderr.write(f"keys are not conserved: {why}\n")
    if args.json:
        sys.stdout.write(json.dumps({**receiver.counts, "keys": totals, "conserved": why is None}) + "\n")
    return 0 if why is None else 1


def first(group: ExceptionGroup[Exception]) -> Exception:
    """What went wrong first, out of the groups of the tasks that it ended."""
    inner = group.exceptions[0]
    return first(inner) if isinstance(inner, ExceptionGroup) else inner


async def _until_stopped(settings: ReceiveSettings, receiver: Receiver) -> None:
    def say(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(run(settings, receiver, say), name="receive")
            await stop.wait()
            serving.cancel()
    except ExceptionGroup as group_of_one:
        raise first(group_of_one) from None
