"""`qmodd kme`: an ETSI GS QKD 014 server over a receiver's store. Needs the extra `kme`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sqlite3
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from qmodd.clock import SystemClock
from qmodd.keys.store import StoreRefused
from qmodd.kme.desk import Desk
from qmodd.kme.settings import KmeSettings, SettingsError, load_settings
from qmodd.randomness import SystemRandomness
from qmodd.systemd import Notifier


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """`qmodd kme`; the chosen function is in `args.run` and returns the exit status."""
    parser = subparsers.add_parser(
        "kme",
        help="ETSI GS QKD 014 server for encryptors",
        description="Hands the keys of a receiver out over HTTPS, ETSI GS QKD 014 v1.1.1. Needs the extra `kme`.",
        epilog="example: qmodd kme --config kme-alice.toml",
    )
    parser.add_argument("--config", type=Path, required=True, help="TOML: KME ids, TLS files, [[pair]] with its store")
    parser.add_argument("--check", action="store_true", help="validate the configuration and exit")
    parser.set_defaults(run=main)
    return parser


def main(args: argparse.Namespace) -> int:
    """0 done (stopped by a signal), 2 wrong configuration or a port that is taken."""
    try:
        from qmodd.kme import server
    except ModuleNotFoundError as e:
        _say(f"qmodd kme needs {e.name}: pip install 'qmodd[kme]'")
        return 2
    try:
        settings = load_settings(args.config)
        context = server.server_tls(settings)
    except (SettingsError, StoreRefused) as e:
        _say(str(e))
        return 2
    except OSError as e:
        _say(f"{args.config}: certificate, key, client_ca: cannot be used for TLS: {e}")
        return 2
    return _serve(args, settings, context)


def _serve(args: argparse.Namespace, settings: KmeSettings, context: ssl.SSLContext) -> int:
    try:
        desk = Desk(settings, SystemClock(), SystemRandomness())
    except (StoreRefused, OSError, sqlite3.Error) as e:
        _say(f"{args.config}: {e}")
        return 2
    try:
        if args.check:
            _say(f"{args.config}: in order")
        else:
            asyncio.run(_until_stopped(settings, desk, context))
    except OSError as e:
        _say(f"{args.config}: listen = {settings.listen}: {e}")
        return 2
    finally:
        desk.close()
    return 0


async def _until_stopped(settings: KmeSettings, desk: Desk, context: ssl.SSLContext) -> None:
    from qmodd.kme.server import Server

    stop, notifier = asyncio.Event(), Notifier.from_environment(os.environ)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def ready(port: int) -> None:
        _say(f"{settings.kme_id}: listening at {settings.address()[0]}, port {port}")
        notifier.ready()

    with ThreadPoolExecutor(1, thread_name_prefix="store") as disk:
        server = Server(settings, desk, lambda line: _say(f"{settings.kme_id}: {line}"), disk)
        # Raised behind the block: what is raised in it would come out as a group again.
        fault: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(server.run(context, ready), name="kme")
                await stop.wait()
                serving.cancel()
        except* OSError as faults:
            fault = faults.exceptions[0]
    if fault is not None:
        raise fault


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
