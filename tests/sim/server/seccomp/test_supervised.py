"""Real processes under a real supervisor: unmodified smbus2, spidev, pyserial and pyvisa against small twins."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import select
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sim.clock import RealClock
from sim.server.seccomp import dispatch, mem, supervisor
from sim.server.seccomp.notify import FilterInstaller
from sim.server.seccomp.supervisor import BUS_PATTERNS, exec_supervised
from sim.server.world_server import WorldServer
from tests.sim.server.background import served
from tests.sim.server.twins import Bench, StillWorld

pytestmark = pytest.mark.processes


def supervised(script: str, run_dir: Path, *args: str) -> tuple[int, Any]:
    """Run a script under supervision; its exit code and what it left with `result(...)`."""
    out = run_dir / "result.json"
    head = f"import json, os, sys\ndef result(value): open({str(out)!r}, 'w').write(json.dumps(value))\n"
    argv = [sys.executable, "-c", head + textwrap.dedent(script), *args]
    code = exec_supervised(argv, "alice", run_dir / "alice.bus", [*BUS_PATTERNS, str(run_dir / "alice-tec")])
    return code, json.loads(out.read_text()) if out.exists() else None


def test_unmodified_libraries(tmp_path: Path) -> None:
    bench = Bench()
    with served(tmp_path, alice=bench) as endpoints:
        script = """
            from smbus2 import SMBus, i2c_msg
            import pyvisa, serial, spidev
            r = {}
            with SMBus(1) as bus:
                r["word"] = bus.read_word_data(0x48, 0x0F)
                bus.write_i2c_block_data(0x48, 5, [1, 2, 3])
                r["block"] = bus.read_i2c_block_data(0x48, 5, 3)
                read = i2c_msg.read(0x48, 2)
                bus.i2c_rdwr(i2c_msg.write(0x48, [0]), read)
                r["rdwr"] = list(read)
                try: bus.read_byte(0x50)
                except OSError as e: r["nack"] = e.errno
            try: SMBus(9)
            except OSError as e: r["no bus"] = e.errno
            spi = spidev.SpiDev()
            spi.open(0, 0)
            spi.mode, spi.max_speed_hz = 1, 2_000_000
            r["spi"] = [spi.mode, spi.max_speed_hz, spi.xfer2([1, 2]), spi.readbytes(1)]
            spi.writebytes([7])
            spi.close()
            with serial.Serial(sys.argv[1], 57600, parity="E", bytesize=7, timeout=3, exclusive=True) as line:
                line.write(b"ping\\n")
                r["serial"] = [line.read_until(b"\\n").decode(), line.cts]
                line.rts = False
                r["rts"] = line.rts
                again = line.parity, line.bytesize
                line.baudrate = 9600
                r["framing"] = [line.parity, line.bytesize]
            manager = pyvisa.ResourceManager("@py")
            with manager.open_resource(sys.argv[2]) as counter:
                r["visa"] = counter.query("*IDN?").strip()
            manager.close()
            result(r)
            sys.exit(5)
        """
        code, got = supervised(
            script, tmp_path, endpoints["alice"]["serial"]["tec"], endpoints["alice"]["visa"]["source"]
        )
    assert code == 5
    assert got == {
        "word": 0x1701,
        "block": [1, 2, 3],
        "rdwr": [0x0C, 0x80],
        "nack": errno.ENXIO,
        "no bus": errno.ENOENT,
        "spi": [1, 2_000_000, [0xFE, 0xFD], [0xFF]],
        "serial": ["ping\n", True],
        "rts": False,
        "framing": ["E", 7],
        "visa": "QM,COUNTER,1,1.0",
    }
    assert bench.spi[0, 0].frames == [(b"\1\2", 1, 2_000_000), (b"\0", 1, 2_000_000), (b"\7", 1, 2_000_000)]


def test_children_threads_and_duplicates_are_served(tmp_path: Path) -> None:
    with served(tmp_path, alice=Bench()):
        script = """
            import fcntl, subprocess, threading
            from smbus2 import SMBus
            bus = SMBus(1)
            r = {"thread": [], "descriptor": bus.fd}
            t = threading.Thread(target=lambda: r["thread"].append(SMBus(2).read_byte_data(0x48, 0x0F)))
            t.start(); t.join()
            twin = os.dup(bus.fd)
            fcntl.ioctl(twin, 0x0703, 0x48)
            r["duplicate"] = bus.read_byte_data(0x48, 0x0F)
            pid = os.fork()
            if pid == 0:
                os._exit(bus.read_byte_data(0x48, 0x0F) + 40)
            r["fork"] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            code = "from smbus2 import SMBus; print(SMBus(1).read_byte_data(0x48, 0x0F))"
            r["exec"] = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
            held = []
            try:
                for _ in range(65): held.append(SMBus(1))
            except OSError as e: r["too many"] = e.errno
            lowest = held[0].fd
            held[0].close()
            r["after"] = SMBus(1).fd == lowest
            result(r)
        """
        code, got = supervised(script, tmp_path)
    assert code == 0
    assert got == {
        "thread": [1],
        "descriptor": 900,
        "duplicate": 1,
        "fork": 41,
        "exec": "1\n",
        "too many": errno.EMFILE,
        "after": True,
    }


def test_a_hanging_bus_holds_up_neither_files_nor_other_buses(tmp_path: Path) -> None:
    bench = Bench()
    released = bench.spi[0, 0].frames  # the first SPI frame frees the I2C bus

    def hangs() -> bool:
        bench.i2c[2].values[7] = b"\1"
        return not released

    bench.i2c[1].hangs = hangs
    with served(tmp_path, alice=bench):
        script = """
            import spidev, threading
            from smbus2 import SMBus
            r = {}
            def hang():
                try: SMBus(1).read_byte_data(0x48, 0x0F)
                except OSError as e: r["hung"] = e.errno
            t = threading.Thread(target=hang)
            t.start()
            other = SMBus(2)
            while other.read_byte_data(0x48, 7) == 0: pass
            r["other"] = other.read_byte_data(0x48, 0x0F)
            r["file"] = open("/proc/self/comm").read()
            r["alive"] = t.is_alive()
            spi = spidev.SpiDev(); spi.open(0, 0); spi.xfer2([0])
            t.join()
            result(r)
        """
        code, got = supervised(script, tmp_path)
    assert (code, got.pop("file", None) is not None) == (0, True)
    assert got == {"other": 1, "alive": True, "hung": errno.ETIMEDOUT}


@pytest.mark.parametrize(("body", "code"), [("raise SystemExit(3)", 3), ("os.kill(os.getpid(), 9)", 128 + 9)])
def test_exit_code_is_the_programs(tmp_path: Path, body: str, code: int) -> None:
    assert supervised(body, tmp_path)[0] == code


def test_a_program_that_cannot_be_started(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"\x7fELF not really")
    bad.chmod(0o755)
    assert exec_supervised([str(bad)], "alice", tmp_path / "bus") == 126
    assert exec_supervised(["no-such-program"], "alice", tmp_path / "bus") == 127
    err = capfd.readouterr().err
    assert "Exec format error" in err
    assert "no such program" in err


def test_a_kernel_that_refuses_gives_3_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: FilterInstaller) -> int:
        raise OSError(errno.EACCES, "denied")

    monkeypatch.setattr(FilterInstaller, "install", refuse)
    assert exec_supervised(["true"], "alice", tmp_path / "bus") == 3
    assert "in-process transport" in capfd.readouterr().err
    monkeypatch.setattr(supervisor, "this_architecture", lambda: None)
    assert exec_supervised(["true"], "alice", tmp_path / "bus") == 3
    assert "no system call table" in capfd.readouterr().err


def test_signals_of_processes_are_passed_on_and_the_terminals_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Info:
        def __init__(self, number: int, code: int) -> None:
            self.si_signo, self.si_code = number, code

    arriving = [
        Info(signal.SIGINT, 0x80),
        Info(signal.SIGINT, 0),
        Info(signal.SIGCHLD, 1),
        None,
        Info(signal.SIGTERM, 0),
    ]
    passed: list[int] = []
    monkeypatch.setattr(signal, "sigtimedwait", lambda signals, timeout: arriving.pop(0))
    monkeypatch.setattr(os, "kill", lambda pid, number: passed.append(number))
    monkeypatch.setattr(os, "waitpid", lambda pid, flags: (0, 0) if arriving else (pid, 7 << 8))
    assert supervisor._wait(4711) == 7
    assert passed == [signal.SIGINT, signal.SIGTERM]


def test_memory_that_may_not_be_read_gives_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> mem.ProcessMemory:
        raise PermissionError(errno.EPERM, "denied")

    monkeypatch.setattr(mem, "ProcessMemory", refuse)
    assert exec_supervised(["true"], "alice", tmp_path / "bus") == 3


def test_a_supervisor_that_fails_ends_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: dispatch.Dispatcher) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(dispatch.Dispatcher, "run", fail)
    assert exec_supervised(["true"], "alice", tmp_path / "bus") == 128 + signal.SIGKILL


SUPERVISOR = """
import sys
from pathlib import Path
from sim.server.seccomp.supervisor import BUS_PATTERNS, exec_supervised
sys.exit(exec_supervised([sys.executable, "-u", "-c", sys.argv[2]], "alice", Path(sys.argv[1]), BUS_PATTERNS))
"""
CONVERSATION = """
import os, signal, sys
from smbus2 import SMBus
bus = None
def say(value): print(value, flush=True)
def caught(number, frame):
    say("caught"); sys.exit(7)
signal.signal(signal.SIGTERM, caught)
say(os.getpid())
for line in sys.stdin:
    try:
        if line == "open\\n": bus = SMBus(1); say("open")
        else: say(bus.read_byte_data(0x48, 0x0F))
    except OSError as e: say(-e.errno)
"""


class Conversation:
    """A supervised program that does what it is told, a line at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self._in, self._out = process, process.stdin, process.stdout
        self.pid = 0

    async def hears(self) -> str:
        async with asyncio.timeout(10.0):
            return (await self._out.readline()).decode().strip()

    async def ask(self, line: str) -> str:
        self._in.write(line.encode() + b"\n")
        return await self.hears()


@asynccontextmanager
async def conversation(socket: Path) -> AsyncIterator[Conversation]:
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", SUPERVISOR, str(socket), CONVERSATION],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        talk = Conversation(process)
        talk.pid = int(await talk.hears())
        yield talk
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


async def test_the_worlds_death_is_eio_and_its_return_the_bus(tmp_path: Path) -> None:
    socket = tmp_path / "alice.bus"
    async with conversation(socket) as talk:
        assert await talk.ask("open") == str(-errno.ENXIO)
        async with WorldServer(StillWorld(), {"alice": Bench()}, tmp_path, RealClock()):
            assert await talk.ask("open") == "open"
            assert await talk.ask("read") == "1"
        assert await talk.ask("read") == str(-errno.EIO)
        assert await talk.ask("open") == str(-errno.ENXIO)
        async with WorldServer(StillWorld(), {"alice": Bench()}, tmp_path, RealClock()):
            assert await talk.ask("read") == "1"  # through the descriptor of before


async def test_sigterm_reaches_the_program_and_its_exit_code_comes_back(tmp_path: Path) -> None:
    async with conversation(tmp_path / "none") as talk:
        talk.process.terminate()
        assert await talk.hears() == "caught"
        assert await talk.process.wait() == 7


async def test_the_supervisors_death_takes_the_program_along(tmp_path: Path) -> None:
    async with conversation(tmp_path / "none") as talk:
        descriptor = os.pidfd_open(talk.pid)
        try:
            talk.process.kill()
            assert select.select([descriptor], [], [], 5.0)[0], "the program outlived its supervisor"
        finally:
            os.close(descriptor)
