from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sim.server.busproto import HANG, I2cMessage, Open, Operation, Rdwr, Reply, Spi
from sim.server.seccomp.client import WorldGone
from sim.server.seccomp.dispatch import Dispatcher, Served
from sim.server.seccomp.files import OpenFiles, stand_in
from sim.server.seccomp.filter import X86_64
from sim.server.seccomp.notify import Notification
from sim.server.seccomp.supervisor import BUS_PATTERNS
from sim.server.seccomp.tty_ioctl import TCGETS, TCSETS
from tests.sim.server.seccomp.fakes import FakeKernel, FakeMemory, FakeProcesses, FakeWorld

READ, WRITE, OPEN, IOCTL, OPENAT, OPENAT2 = 0, 1, 2, 16, 257, 437
CLOEXEC = os.O_RDWR | os.O_CLOEXEC


class ScriptedWorld:
    """A device's connection that a function answers."""

    def __init__(self, answer: Callable[[Operation], Reply]) -> None:
        self._answer = answer
        self.steps: list[str] = []

    def call(self, operation: Operation, wanted: Callable[[], bool]) -> Reply:
        return self._answer(operation)

    def interrupt(self) -> None:
        self.steps.append("interrupt")

    def close(self) -> None:
        self.steps.append("close")


class Table:
    """A dispatcher between a fake kernel, one fake caller and scripted worlds by path."""

    def __init__(self, worlds: dict[str, Callable[[Operation], Reply]], lines: tuple[Path, ...] = ()) -> None:
        self.kernel, self.caller = FakeKernel(), FakeProcesses()
        self.dispatcher = Dispatcher(
            self.kernel,
            self.caller,
            X86_64,
            Served(BUS_PATTERNS, lines),
            lambda path: ScriptedWorld(worlds[path]),
        )
        self._last = 0

    def call(self, number: int, *args: int, arch: int = X86_64.audit) -> int:
        """Hand in a stopped call; returns its key."""
        self._last += 1
        padded = (*args, *[0] * (6 - len(args)))
        self.dispatcher.handle(Notification(self._last, 4711, number, arch, padded))
        return self._last

    def open(self, path: bytes, number: int = OPENAT, flags: int = CLOEXEC) -> int:
        at = self.caller.space.place(4096, path + b"\0")
        return self.call(number, at, flags) if number == OPEN else self.call(number, 2**64 - 100, at, flags)

    def finish(self) -> dict[int, object]:
        """Let the workers end; what all calls came to."""
        self.dispatcher.close()
        return self.kernel.outcome

    def opened(self, path: str, descriptor: int) -> None:
        self.caller.targets[descriptor] = f"/memfd:qmodd-bus-{self.dispatcher.files.add(path)} (deleted)"


@pytest.mark.parametrize("path", [b"/etc/passwd", b"", b"/dev/i2c", b"/dev/spidev", b"i2c-1", b"x" * 200])
def test_other_paths_run_on(path: bytes) -> None:
    table = Table({})
    key = table.open(path)
    assert table.finish()[key] == "through"


@pytest.mark.parametrize(("number", "flags"), [(OPEN, CLOEXEC), (OPENAT, CLOEXEC), (OPENAT, os.O_RDWR)])
def test_a_bus_is_opened_in_the_reserved_range(number: int, flags: int) -> None:
    table = Table({"/dev/i2c-1": FakeWorld(Reply(0))})
    table.caller.targets[900] = "taken"
    key = table.open(b"/dev/i2c-1", number, flags)
    assert table.finish()[key] == ("file", 901, bool(flags & os.O_CLOEXEC))


def test_openat2_has_its_flags_behind_a_pointer() -> None:
    table = Table({"/dev/spidev0.0": FakeWorld(Reply(0))})
    how = table.caller.space.place(0, struct.pack("<QQQ", os.O_CLOEXEC, 0, 0))
    key = table.open(b"/dev/spidev0.0", OPENAT2, how)
    assert table.finish()[key] == ("file", 900, True)


@pytest.mark.parametrize(
    ("error", "value"),
    [(WorldGone("none"), -errno.ENXIO), (OSError(errno.ENOENT, ""), -errno.ENOENT), (OSError("?"), -errno.EIO)],
)
def test_what_an_open_fails_with(error: OSError, value: int) -> None:
    table = Table({"/dev/i2c-1": FakeWorld(error)})  # type: ignore[dict-item]
    key = table.open(b"/dev/i2c-1")
    assert table.finish()[key] == value


def test_no_descriptor_left() -> None:
    table = Table({"/dev/i2c-1": FakeWorld(Reply(0))})
    table.caller.targets.update(dict.fromkeys(range(900, 964), "taken"))
    key = table.open(b"/dev/i2c-1")
    assert table.finish()[key] == -errno.EMFILE


def test_unreadable_callers_run_on() -> None:
    table = Table({})
    table.caller.readable = False
    key = table.open(b"/dev/i2c-1")
    assert table.finish()[key] == "through"


def test_ioctl_read_and_write_of_a_bus() -> None:
    world = FakeWorld(Reply(0, b"ok"), Reply(2))
    table = Table({"/dev/i2c-1": world})
    table.opened("/dev/i2c-1", 900)
    place = table.caller.space.place(0, b"hello")
    keys = [
        table.call(IOCTL, 900, 0x0703, 0x48),
        table.call(READ, 900, place, 2),
        table.call(WRITE, 900, place, 5),
        table.call(IOCTL, 900, 0x0707, 1),  # a bad pointer
    ]
    outcome = table.finish()
    assert [outcome[k] for k in keys] == [0, 2, 5, -errno.EFAULT]
    assert table.caller.space.read(place, 5) == b"okllo"
    assert world.seen == [Rdwr((I2cMessage(0x48, 1, 2),)), Rdwr((I2cMessage(0x48, 0, 5, b"okllo"),))]


def test_two_opens_have_a_state_each() -> None:
    world = FakeWorld(Reply(1, b"a"), Reply(1, b"b"))
    table = Table({"/dev/spidev0.0": world})
    for descriptor, mode in ((900, 1), (901, 3)):
        table.opened("/dev/spidev0.0", descriptor)
        table.call(IOCTL, descriptor, 1 << 30 | 1 << 16 | 0x6B01, table.caller.space.place(mode, bytes([mode])))
        table.call(READ, descriptor, table.caller.space.place(64, b"."), 1)
    table.finish()
    assert [op.mode for op in world.seen if isinstance(op, Spi)] == [1, 3]


@pytest.mark.parametrize("number", [READ, WRITE, IOCTL])
def test_descriptors_of_others_run_on(number: int) -> None:
    table = Table({})
    table.caller.targets[900] = "/memfd:qmodd-bus-77 (deleted)"
    keys = [table.call(number, 900, 0x0703, 0), table.call(number, 901, 0x0703, 0)]
    assert [table.finish()[k] for k in keys] == ["through", "through"]


def test_calls_of_other_architectures_and_unknown_ones_run_on() -> None:
    table = Table({})
    keys = [table.call(OPENAT, 0, 0, arch=0x40000003), table.call(999)]
    assert [table.finish()[k] for k in keys] == ["through", "through"]


def test_a_caller_that_is_gone_moves_no_bus() -> None:
    world = FakeWorld()
    table = Table({"/dev/i2c-1": world})
    table.opened("/dev/i2c-1", 900)
    table.kernel.gone.add(1)
    key = table.call(READ, 900, table.caller.space.base, 1)
    assert table.finish()[key] == -errno.ESRCH
    assert world.seen == []


def test_an_error_of_ours_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Operation) -> Reply:
        raise ZeroDivisionError

    table = Table({"/dev/i2c-1": broken})
    table.opened("/dev/i2c-1", 900)
    key = table.call(READ, 900, table.caller.space.base, 1)
    assert table.finish()[key] == -errno.EIO
    assert "not served" in caplog.text


def test_a_bus_that_hangs_blocks_neither_opens_nor_another_bus() -> None:
    release, answered = threading.Event(), threading.Event()

    def hanging(operation: Operation) -> Reply:
        if not isinstance(operation, Open):
            assert release.wait(5.0)
        return Reply(0)

    def quick(_: Operation) -> Reply:
        answered.set()
        return Reply(1, b"q")

    table = Table({"/dev/i2c-1": hanging, "/dev/i2c-2": quick})
    table.opened("/dev/i2c-1", 900)
    table.opened("/dev/i2c-2", 901)
    place = table.caller.space.base
    hung = table.call(READ, 900, place, 0)
    other = table.call(READ, 901, place, 1)
    assert answered.wait(5.0)
    assert table.kernel.outcome.get(hung) is None
    assert table.kernel.outcome[table.open(b"/etc/hosts")] == "through"
    release.set()
    outcome = table.finish()
    assert (outcome[hung], outcome[other]) == (0, 1)


def test_lines_behind_links_are_emulated_and_other_terminals_are_not(tmp_path: Path) -> None:
    link = tmp_path / "tec"
    link.symlink_to("/dev/pts/98")
    table = Table({}, (link,))
    table.caller.targets.update({5: "/dev/pts/98", 6: "/dev/pts/97", 7: "/tmp/file"})
    place = table.caller.space.place(0, struct.pack("<4I", 0, 0, 0o400 | 0o40, 0).ljust(36, b"\0"))
    keys = [
        table.call(IOCTL, 5, TCGETS, place),  # never set: as the kernel has it
        table.call(IOCTL, 5, TCSETS, place),
        table.call(IOCTL, 6, TCSETS, place),
        table.call(IOCTL, 7, TCSETS, place),
        table.call(IOCTL, 5, TCSETS, 1),
    ]
    outcome = table.finish()
    assert [outcome[k] for k in keys] == ["through", 0, "through", "through", -errno.EFAULT]
    assert struct.unpack_from("<I", table.caller.line.settings[TCSETS], 8)[0] == 0o60


def test_run_ends_with_the_listener() -> None:
    table = Table({})
    table.kernel.waiting = [Notification(k, 1, 999, X86_64.audit, (0,) * 6) for k in (7, 8)]
    table.dispatcher.run()
    assert table.finish() == {7: "through", 8: "through"}


def test_paths_are_sorted_by_kind() -> None:
    served = Served.of(["/dev/i2c-*", "/run/alice-tec", "/dev/spidev0.1"])
    assert served == Served(("/dev/i2c-*", "/dev/spidev0.1"), (Path("/run/alice-tec"),))
    assert served.is_bus("/dev/spidev0.1")
    assert not served.is_bus("/dev/spidev0.0")


def test_open_files_are_found_by_name_and_forgotten_in_order_of_use() -> None:
    files = OpenFiles(kept=2)
    names = []
    for path in ("/dev/i2c-1", "/dev/i2c-2", "/dev/spidev0.0"):
        descriptor = stand_in(files.add(path))
        names.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        os.close(descriptor)
        files.find(names[0])
    found = [files.find(name) for name in names]
    assert [f and f.path for f in found] == ["/dev/i2c-1", None, "/dev/spidev0.0"]
    assert files.find("/memfd:other (deleted)") is None


def test_memory_outside_is_a_fault() -> None:
    assert FakeMemory().read_some(0, 4) == b""
    assert HANG < -4096  # no errno
