"""A broker for demo and laboratory: Mosquitto if it is there, else the embedded one. A site brings its own.

`python -m qmodd.broker CONFIG` runs the embedded one in this process.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_PACKET_BYTES = 8 * 1024 * 1024
READY_WITHIN_S = 10.0
POLL_S = 0.02
STOP_WITHIN_S = 5.0

_MOSQUITTO = """\
# One listener on this host, for demo and laboratory only.
user {user}
listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {directory}/
autosave_interval 1
max_packet_size {max_packet}
max_queued_messages 10000
set_tcp_nodelay true
log_dest stderr
log_type error
log_type warning
"""

# Small segments and a payload limit, or its memory grows; the version 5 listener alone, because a publish with a
# property ends a 3.1.1 connection that it reaches (reference mqtt).
_EMBEDDED = """\
id = 0
[router]
id = 0
max_connections = 128
max_outgoing_packet_count = 200
max_segment_size = 1048576
max_segment_count = 3
[v5.1]
name = "v5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 10000
max_payload_size = 1048576
max_inflight_count = 100
"""


class BrokerFailed(Exception):
    """The broker did not come up; carries the end of its log."""


@dataclass(frozen=True)
class BrokerPlan:
    """How to start the broker; the same plan again is a restart on the same port with the same stored messages."""

    kind: str
    argv: list[str]
    port: int
    scheme: str = "mqtt"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


@dataclass
class BrokerHandle:
    """A running broker."""

    plan: BrokerPlan
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return self.plan.url

    def stop(self) -> None:
        """Ends it (SIGTERM, then SIGKILL); safe to call twice."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def find_mosquitto() -> str | None:
    """Path of the program; Debian keeps it where a user's PATH does not reach."""
    return shutil.which("mosquitto", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")


def free_port() -> int:
    """A TCP port of this host that is free now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def plan_broker(run_dir: Path, port: int | None = None, *, embedded: bool | None = None) -> BrokerPlan:
    """Writes the configuration into `run_dir`. `embedded` None takes Mosquitto if it is installed."""
    run_dir.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    mosquitto = None if embedded else find_mosquitto()
    if mosquitto is None and embedded is False:
        raise BrokerFailed("mosquitto is not installed")
    if mosquitto is not None:
        config = run_dir / "mosquitto.conf"
        # As root it would become the user `mosquitto`, who cannot write here.
        user, directory = pwd.getpwuid(os.getuid()).pw_name, run_dir.resolve()
        config.write_text(_MOSQUITTO.format(port=port, user=user, directory=directory, max_packet=MAX_PACKET_BYTES))
        return BrokerPlan("mosquitto", [mosquitto, "-c", str(config)], port)
    config = run_dir / "embedded-broker.toml"
    config.write_text(_EMBEDDED.format(port=port))
    return BrokerPlan("embedded", [sys.executable, "-m", "qmodd.broker", str(config)], port)


def plan_configured(run_dir: Path, text: str, values: Mapping[str, str], port: int | None = None) -> BrokerPlan:
    """Mosquitto with a configuration like `text` in which each option of `values` says something else.

    Port, user and where it stores things are set here. Raises BrokerFailed for an option that is not there once.
    """
    mosquitto = find_mosquitto()
    if mosquitto is None:
        raise BrokerFailed("mosquitto is not installed")
    run_dir.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    own = {"listener": f"{port} 127.0.0.1", "persistence_location": f"{run_dir.resolve()}/"}
    for option, value in {**own, **values}.items():
        text, n = re.subn(rf"^{re.escape(option)} .*$", f"{option} {value}", text, flags=re.M)
        if n != 1:
            raise BrokerFailed(f"{option!r} is {n} times in the configuration; it must be there once")
    config = run_dir / "mosquitto.conf"
    config.write_text(f"user {pwd.getpwuid(os.getuid()).pw_name}\n{text}")
    scheme = "mqtts" if re.search(r"^certfile ", text, re.M) else "mqtt"
    return BrokerPlan("mosquitto", [mosquitto, "-c", str(config)], port, scheme)


async def start_broker(run_dir: Path, port: int | None = None, *, embedded: bool | None = None) -> BrokerHandle:
    """Starts it and returns when it takes connections. Raises BrokerFailed."""
    return await start_planned(plan_broker(run_dir, port, embedded=embedded), run_dir)


async def start_planned(plan: BrokerPlan, run_dir: Path) -> BrokerHandle:
    """As `start_broker`, for a plan that was made before."""
    handle = _spawn(plan, run_dir / "broker.log")
    plan, log, process = handle.plan, handle.log, handle.process
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            while not await accepts(plan.port):
                if process.poll() is not None:
                    raise BrokerFailed(f"{plan.kind} ended with status {process.returncode}: {_tail(log)}")
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        handle.stop()
        raise BrokerFailed(f"{plan.kind} takes no connections after {READY_WITHIN_S:g} s: {_tail(log)}") from None
    except asyncio.CancelledError:
        handle.stop()
        raise
    return handle


def _spawn(plan: BrokerPlan, log: Path) -> BrokerHandle:
    with open(log, "ab") as out:
        process = subprocess.Popen(plan.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    return BrokerHandle(plan, log, process)


async def accepts(port: int) -> bool:
    """Does somebody take TCP connections on this port of this host?"""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def _tail(log: Path) -> str:
    return " | ".join(log.read_text(errors="replace").splitlines()[-5:]) or "(its log is empty)"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the embedded broker until it is ended by a signal."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1 or not Path(arguments[0]).is_file():
        sys.stderr.write("usage: python -m qmodd.broker CONFIG\n")
        return 2
    try:
        from iotcore import IotCoreBroker
    except ImportError:
        sys.stderr.write("neither mosquitto nor the extra 'emulator' (iotcore) is installed\n")
        return 2
    IotCoreBroker(config_path=arguments[0]).run_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
