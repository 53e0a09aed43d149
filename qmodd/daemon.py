"""`qmodd core`, `qmodd uplink`, `qmodd run`: the processes of a module controller."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import selectors
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qmodd.config import Config, ConfigError, load
from qmodd.config_files import Part, left_unresolved
from qmodd.systemd import Notifier, Supervision, watchdog_period

if TYPE_CHECKING:
    from qmodd.app.core import Core

log = logging.getLogger("qmodd")
RESTART_UPLINK_S = 0.5
# Whatever comes over the network, core's loops come first.
UPLINK_NICENESS = 5
SWITCH_S = 0.0005
# Keys that are on their way, outputs going safe, files: what a stop may take.
STOP_S = 10.0
STOP_UPLINK_S = 3.0


def add_parser(subparsers: Any) -> None:
    for name, help_text, action in (
        ("core", "devices, loops, keys: the module's own process", core_main),
        ("uplink", "the network's side: MQTT and the service channel", uplink_main),
        ("run", "core and uplink together (lab)", run_main),
    ):
        part: Part = "uplink" if name == "uplink" else "core" if name == "core" else "both"
        p = subparsers.add_parser(name, help=help_text, epilog=f"example: qmodd {name} --config /etc/qmodd/alice.toml")
        p.add_argument("--config", type=Path, required=True, help="TOML file of the module")
        p.add_argument("--check", action="store_true", help="validate the configuration and exit")
        p.add_argument("--verbose", action="store_true", help="more on stderr")
        p.set_defaults(run=_checked(action, part))


def _checked(action: Callable[[Config, argparse.Namespace], int], part: Part) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        logging.basicConfig(
            level=logging.DEBUG if args.verbose else logging.INFO,
            stream=sys.stderr,
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
        for noisy in ("pyvisa", "aiomqtt", "mqtt", "asyncio", "numba"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        try:
            config = load(args.config, part, given=not args.check)
            if args.check or action is not uplink_main:  # uplink has no device: it need not load their libraries
                check_drivers(config, args.config)
        except ConfigError as e:
            sys.stderr.write(f"{e}\n")
            return 2
        if args.check:
            unseen = left_unresolved(config)
            aside = f", but for what only the service is given: {', '.join(unseen)}" if unseen else ""
            sys.stderr.write(f"{args.config}: in order{aside}\n")
            return 0
        return action(config, args)

    return run


def check_drivers(config: Config, path: Path) -> None:
    """Every device's driver and options, without touching a bus. Raises ConfigError with a line a fault."""
    from drivers.registry import RegistryError, validate

    faults = []
    for d in config.device:
        try:
            validate(d.driver, d.name, d.options)
        except RegistryError as e:
            faults.append(f"{path}: {e}")
    if faults:
        raise ConfigError("\n".join(faults))


def door_path(config: Config) -> Path:
    return config.uplink.door or config.module.state_dir / "door.sock"


def local_path(config: Config) -> Path:
    return config.module.state_dir / "local.sock"


def precise_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose timers are not rounded up to whole milliseconds, as epoll's are: a control loop at 100 Hz
    would be late by half a millisecond on average. Core holds far fewer than select's 1024 descriptors."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def core_main(config: Config, args: argparse.Namespace) -> int:
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(until_signalled(lambda: _core(config)))


async def _core(config: Config) -> None:
    from drivers.bus.real import real_libraries
    from qmodd.app.core import Core, Injected
    from qmodd.clock import SystemClock
    from qmodd.door import Door
    from qmodd.door_core import DoorCore
    from qmodd.keys.kernels import InlineKernels, Kernels, WorkerKernels
    from qmodd.randomness import SystemRandomness
    from qmodd.realtime import take_priority

    # Bus threads share the interpreter with the loops: 5 ms a turn, the default, would add up to a missed period.
    sys.setswitchinterval(SWITCH_S)
    if (why := take_priority(config.control.realtime_priority)) is not None:
        log.warning("%s", why)
    clock, randomness = SystemClock(), SystemRandomness()
    kernels: Kernels = WorkerKernels() if config.keys.worker else InlineKernels(randomness)

    def make_door(**parts: Any) -> DoorCore:
        return Door(door_path(config), **parts, shared=config.uplink.door_shared)

    async def serve(door: DoorCore) -> None:
        assert isinstance(door, Door)
        await door.run()

    notifier, watchdog_s = _supervisor()
    injected = Injected(
        real_libraries(),
        clock,
        randomness,
        kernels,
        make_door,
        serve,
        threads=True,
        durable=True,
        local_socket=local_path(config),
    )
    with only_core(config.module.state_dir):
        core = Core(config, injected)
        core.events.listeners.append(_to_log)
        try:
            await supervised(core, notifier, watchdog_s)
        finally:
            core.close()


async def supervised(core: Core, notifier: Notifier, period_s: float | None) -> None:
    """`core.run` with systemd told how it is: ready, one line of status, alive, stopping."""
    life = core.life

    def status() -> str:
        return f"{life.activity}: {life.why('activity')}"

    await Supervision(notifier, period_s, Health(core).why, status).around(core.run, STOP_S)


class Health:
    """What feeding systemd's watchdog depends on: every loop has checked in, and the operator's task lives."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._begun = False

    def why(self) -> str | None:
        """Why the watchdog must not be fed; None: all is well."""
        alive = any(t.get_name() == "operator" and not t.done() for t in asyncio.all_tasks())
        self._begun = self._begun or alive
        if self._begun and not alive:
            return "the operator's task has ended"
        scheduler = self._core.wiring.scheduler
        if scheduler is None or not scheduler.running:
            return None
        late = scheduler.check_in.late(self._core.wiring.clock.monotonic())
        return ", ".join(f"loop {name} silent for {age:.1f} s" for name, age in sorted(late.items())) or None


def _supervisor() -> tuple[Notifier, float | None]:
    """systemd as this process's environment names it, and its deadline in s. Raises ConfigError."""
    try:
        return Notifier.from_environment(os.environ), watchdog_period(os.environ, os.getpid())
    except ValueError as e:
        raise ConfigError(f"environment: {e}") from e


@contextmanager
def only_core(state_dir: Path) -> Iterator[None]:
    """Holds the state directory's lock; the kernel drops it with the process, however that ends.

    Raises ConfigError when another core has it: two of them would drive one module.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    with open(state_dir / "core.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"module.state_dir = {str(state_dir)!r}: another core runs on it") from None
        yield


@contextmanager
def only_uplink(directory: Path) -> Iterator[None]:
    """As `only_core`, for the uplinks of one module, which would take door and broker away from each other.

    Where uplink may not write there, nothing is held; the one that the broker sends away then stands back.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        lock = open(directory / "uplink.lock", "w")  # noqa: SIM115 # closed by the `with` below
    except OSError:
        yield
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{directory}: another uplink of this module runs") from None
        yield


def _to_log(entry: dict[str, Any]) -> None:
    shown = {k: v for k, v in entry.items() if k not in ("seq", "t", "module", "event")}
    log.info("%s %s", entry["event"], " ".join(f"{k}={v}" for k, v in shown.items()))


def uplink_main(config: Config, args: argparse.Namespace) -> int:
    return asyncio.run(until_signalled(lambda: _uplink(config)))


async def _uplink(config: Config) -> None:
    from qmodd.randomness import SystemRandomness
    from qmodd.uplink.app import UplinkSettings, run_uplink
    from qmodd.uplink.mqtt_link import BrokerSettings

    u = config.uplink
    settings = UplinkSettings(
        serial=config.module.serial,
        door=door_path(config),
        broker=BrokerSettings(url=u.broker, ca=u.ca, certificate=u.certificate, key=u.key),
        relay_listen=u.relay_listen,
        relay_connect=u.relay_connect,
    )
    told = ["started"]

    def report(name: str, why: str) -> None:
        told[0] = f"{name} {why}"
        log.info("%s %s", name, why)

    # That its event loop turns is all that uplink has to show: what it waits for may be away for days.
    supervision = Supervision(*_supervisor(), lambda: None, lambda: told[0])
    with suppress(PermissionError):  # a service sets it for itself, and forbids it to its process
        os.nice(UPLINK_NICENESS)
    with only_uplink(settings.door.parent):
        await supervision.around(lambda: run_uplink(settings, SystemRandomness(), report), STOP_UPLINK_S)


def run_main(config: Config, args: argparse.Namespace) -> int:
    """Core here, uplink in a process of its own that is started again whenever it ends."""
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(until_signalled(lambda: _both(config, args.config)))


async def _both(config: Config, path: Path) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_core(config), name="core")
        group.create_task(_keep_uplink(path), name="uplink")


async def _keep_uplink(path: Path) -> None:
    while True:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "qmodd", "uplink", "--config", str(path), env=dict(os.environ)
        )
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
        log.warning("uplink ended with status %s; starting it again", status)
        await asyncio.sleep(RESTART_UPLINK_S)


async def until_signalled(main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run `main` until it ends or SIGTERM or SIGINT comes; then cancel it and wait for it. Returns the exit status.

    What a configuration still hides at this point (a file that does not fit) ends with status 2.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    status = 0
    try:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(main(), name="main")
            watch = group.create_task(_cancel_on(stop, work), name="signals")
            with suppress(asyncio.CancelledError):
                await work
            watch.cancel()
    except* _configuration_faults() as faults:
        for e in _leaves(faults):
            sys.stderr.write(f"{e}\n")
        status = 2
    return status


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


async def _cancel_on(stop: asyncio.Event, work: asyncio.Task[None]) -> None:
    await stop.wait()
    log.info("stopping")
    work.cancel()


def _configuration_faults() -> tuple[type[Exception], ...]:
    from pydantic import ValidationError

    from calibration.store import StoreDamaged
    from drivers.registry import RegistryError
    from qmodd.crypto.suites import BadKeyFile
    from qmodd.keys.pool import PoolRefused
    from qmodd.keys.store import StoreRefused

    return (BadKeyFile, ConfigError, PoolRefused, RegistryError, StoreDamaged, StoreRefused, ValidationError)
