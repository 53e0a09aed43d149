"""`qmodd demo`: everything that a pair of sites consists of, as processes, and a view of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from qmodd.broker import BrokerPlan, accepts, free_port, plan_broker
from qmodd.clock import SystemClock
from qmodd.demo.compose import SERIALS, Places, configuration, provision_site
from qmodd.demo.services import Service, Services, StartFailed
from qmodd.demo.view import View
from qmodd.randomness import SystemRandomness
from qmodd.receive import read_digests
from qmodd.uplink.mqtt_link import BrokerSettings, LinkDown, open_link
from qmodd.uplink.topics import module_of

SITES = {"alice": "kms-a", "bob": "kms-b"}
# A key counts once both sites have it.
USABLE = ("usable", "handed_out")
ENDPOINTS_WITHIN_S = 60.0
LINE_S = 1.0


def add_parser(subparsers: Any) -> None:
    p = subparsers.add_parser(
        "demo",
        help="a running pair of modules, with nothing but this machine",
        description="Starts emulator, broker, alice, bob and a receiving KMS a site as processes; shows what they do.",
        epilog="example: qmodd demo --until-keys 5 --json",
    )
    end = p.add_mutually_exclusive_group()
    end.add_argument("--until-keys", type=_positive_int, metavar="N", help="end when both sites hold N equal keys")
    end.add_argument("--seconds", type=_positive, metavar="S", help="end after S seconds")
    p.add_argument("--scenario", type=Path, metavar="FILE", help="emulated world (default: 10 dB, see configs/)")
    p.add_argument("--seed", type=int, metavar="K", help="another pair of individuals")
    p.add_argument("--speed", type=_positive, default=1.0, metavar="X", help="world seconds a second (default 1)")
    p.add_argument("--broker", metavar="URL", help="an MQTT 5 broker that runs already, e.g. mqtt://127.0.0.1:1883")
    p.add_argument("--run-dir", type=Path, metavar="D", help="keep everything here (default: a temporary directory)")
    p.add_argument("--timeout", type=_positive, default=600.0, metavar="S", help="give up after S s (default 600)")
    p.add_argument("--json", action="store_true", help="one JSON object as the last line on stdout")
    p.set_defaults(run=command)


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} must be greater than 0")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return value


def command(args: argparse.Namespace) -> int:
    own = args.run_dir is None
    run_dir: Path = Path(tempfile.mkdtemp(prefix="qmodd-demo-")) if own else args.run_dir.absolute()
    run_dir.mkdir(parents=True, exist_ok=True)
    demo = Demo(args, run_dir)
    try:
        report = asyncio.run(demo.run())
    finally:
        if own:
            shutil.rmtree(run_dir, ignore_errors=True)
    if args.json:
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
    return 0 if report["ok"] else 1


class Demo:
    """One run of the demo."""

    def __init__(self, args: argparse.Namespace, run_dir: Path) -> None:
        self.args, self.run_dir = args, run_dir
        self._clock = SystemClock()
        self._begun = self._clock.monotonic() - process_age_s()
        self.services = Services(self.say)
        self.view = View({serial: name for name, serial in SERIALS.items()}, self.now, self.say)
        self.first_key_s: float | None = None
        # Only the report at the end reads it; alice and bob do not know it.
        self._truth = run_dir / "truth.jsonl"
        self._phase_errors: list[float] = []
        self.matching: set[str] = set()
        self.mismatched: set[str] = set()
        self.why = ""
        # A terminal gets a line that is rewritten in place; a log gets one a second.
        self._terminal = sys.stderr.isatty()
        self._said = ""

    def now(self) -> float:
        """Seconds since this process was started."""
        return self._clock.monotonic() - self._begun

    def say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            clear = "\r\033[K" if self._terminal else ""
            sys.stderr.write(f"{clear}[{self.now():6.1f} s] {text}\n")
            sys.stderr.flush()

    async def run(self) -> dict[str, Any]:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._stop, stop, "ended by the user")
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(self._work(group, stop), name="demo")
                await stop.wait()
                work.cancel()
                for task in self._tasks:
                    task.cancel()
        except* StartFailed as faults:
            self.why = "; ".join(str(e) for e in faults.exceptions)
            self.say(self.why)
        self._look()
        await self.services.stop()
        return self.report()

    _tasks: list[asyncio.Task[None]]

    def _stop(self, stop: asyncio.Event, why: str) -> None:
        self.why = self.why or why
        stop.set()

    async def _work(self, group: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        self._tasks = []

        def keep(service: Service) -> None:
            self.services.add(service)
            self._tasks.append(group.create_task(self.services.keep(service), name=service.name))

        self.say(f"run directory {self.run_dir}")
        keep(self._sim())
        url = self._broker(keep)
        if not (self.run_dir / "site").exists():  # a run directory may be used again
            provision_site(self.run_dir, self._clock.utc(), SystemRandomness())
        await self._wait_broker(url)
        self._tasks.append(group.create_task(self._watch(url), name="watch"))
        self._receivers(keep, url)
        endpoints = await self._endpoints()
        self.say("emulator and broker are up; starting alice and bob")
        self._modules(keep, endpoints, url)
        self._hint(url)
        await self._follow(stop)

    # what is started

    def _service(self, name: str, *argv: str) -> Service:
        return Service(name, [sys.executable, "-m", "qmodd", *argv], self.run_dir / "logs" / f"{name}.log")

    def _sim(self) -> Service:
        argv = ["sim", "--run-dir", str(self.run_dir / "sim"), "--speed", str(self.args.speed)]
        argv += ["--truth", str(self._truth)]
        if self.args.scenario:
            argv += ["--scenario", str(self.args.scenario.absolute())]
        if self.args.seed is not None:
            argv += ["--seed", str(self.args.seed)]
        return self._service("sim", *argv)

    def _broker(self, keep: Callable[[Service], None]) -> str:
        if self.args.broker:
            return str(self.args.broker)
        plan: BrokerPlan = plan_broker(self.run_dir / "broker")
        self.say(f"broker: {plan.kind} on port {plan.port}")
        keep(Service("broker", plan.argv, self.run_dir / "logs" / "broker.log"))
        return plan.url

    def _receivers(self, keep: Callable[[Service], None], url: str) -> None:
        for module, kms in SITES.items():
            config = self.run_dir / f"{kms}.toml"
            config.write_text(
                f'identity = "site/{kms}.key"\nstore = "{kms}.db"\n\n[broker]\nurl = "{url}"\n\n'
                f'[[sender]]\nserial = "{SERIALS[module]}"\npublic = "site/{SERIALS[module]}.pub"\n'
            )
            keep(self._service(kms, "receive", "--config", str(config)))

    def _modules(self, keep: Callable[[Service], None], endpoints: dict[str, Any], url: str) -> None:
        places = Places(self.run_dir, url, f"127.0.0.1:{free_port()}")
        for module in SITES:
            config = self.run_dir / module / f"{module}.toml"
            config.write_text(configuration(module, endpoints, places))
            core = [sys.executable, "-m", "qmodd", "core", "--config", str(config)]
            keep(
                self._service(
                    f"{module}-core",
                    "sim",
                    "exec",
                    "--module",
                    module,
                    "--run-dir",
                    str(self.run_dir / "sim"),
                    "--",
                    *core,
                )
            )
            keep(self._service(f"{module}-uplink", "uplink", "--config", str(config)))

    async def _endpoints(self) -> dict[str, Any]:
        path = self.run_dir / "sim" / "endpoints.json"
        try:
            async with asyncio.timeout(ENDPOINTS_WITHIN_S):
                while not path.exists():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise StartFailed(f"the emulator served nothing within {ENDPOINTS_WITHIN_S:.0f} s") from None
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    async def _wait_broker(self, url: str) -> None:
        _, port = BrokerSettings(url=url).endpoint()
        while not self.args.broker and not await accepts(port):
            await asyncio.sleep(0.05)

    def _hint(self, url: str) -> None:
        operator = self.run_dir / "site" / "operator"
        self.say(f"look: qmodctl watch --broker {url}")
        self.say(f"act:  qmodctl do --broker {url} --identity {operator} {SERIALS['alice']} stop")

    # what is seen

    async def _watch(self, url: str) -> None:
        while True:
            try:
                async with open_link(BrokerSettings(url=url), f"qmodd-demo-{os.getpid()}") as link:
                    await link.subscribe("qmodd/v1/#")
                    while True:
                        message = await link.next_message()
                        serial = module_of(message.topic)
                        if serial is not None:
                            suffix = message.topic.split("/", 3)[3]
                            self.view.message(serial, suffix, message.payload)
            except LinkDown as e:
                self.say(f"broker: {e}")
            await asyncio.sleep(0.5)

    async def _follow(self, stop: asyncio.Event) -> None:
        args = self.args
        while True:
            await asyncio.sleep(LINE_S)
            self._look()
            self._look_at_truth()
            self._show(self.view.line(len(self.matching)))
            if args.until_keys and len(self.matching) >= args.until_keys:
                self._stop(stop, f"{len(self.matching)} keys at both sites")
            elif args.seconds and self.now() >= args.seconds:
                self._stop(stop, f"{args.seconds:g} s are over")
            elif args.until_keys and self.now() > args.timeout:
                self._stop(stop, f"no {args.until_keys} keys within {args.timeout:g} s")

    def _look(self) -> None:
        """Compare what the two receivers may hand out."""
        digests = [read_digests(self.run_dir / f"{kms}.db", states=USABLE) for kms in SITES.values()]
        common = digests[0].keys() & digests[1].keys()
        self.matching = {i for i in common if digests[0][i] == digests[1][i]}
        self.mismatched = common - self.matching
        if self.matching and self.first_key_s is None:
            self.first_key_s = self.now()
            self.say("first secret keys at both sites, equal")

    def _look_at_truth(self) -> None:
        """True phase error of this second, while keys are being made."""
        if all(m.activity == "keying" for m in self.view.modules.values()):
            with suppress(OSError, ValueError, IndexError, KeyError):
                last = self._truth.read_text().splitlines()[-1]
                self._phase_errors.append(float(json.loads(last)["phase_error_deg"]))

    def _show(self, line: str) -> None:
        if self._terminal:
            sys.stderr.write(f"\r\033[K{line}")
        else:
            sys.stderr.write(f"[{self.now():6.1f} s] {line}\n")
        sys.stderr.flush()

    def report(self) -> dict[str, Any]:
        keys_match = bool(self.matching) and not self.mismatched
        wanted = self.args.until_keys
        errors = self._phase_errors
        out = self.view.report() | {
            "phase_error_rms_deg": round(math.sqrt(sum(e * e for e in errors) / len(errors)), 3) if errors else None,
            "first_key_s": None if self.first_key_s is None else round(self.first_key_s, 2),
            "keys_delivered": len(self.matching),
            "keys_match": keys_match,
            "restarts": {s.name: s.starts - 1 for s in self.services.members.values() if s.starts > 1},
            "ended": self.why,
            "seconds": round(self.now(), 2),
        }
        return {"ok": keys_match and (not wanted or len(self.matching) >= wanted), **out}


def process_age_s() -> float:
    """How long ago this process was started (what the interpreter took to start counts, too)."""
    with suppress(OSError, ValueError, IndexError):
        stat = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return max(0.0, uptime - int(stat[19]) / os.sysconf("SC_CLK_TCK"))
    return 0.0
