from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from qmodd import sim_cli
from tests.sim.server.background import served


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    sim_cli.add_parser(parser.add_subparsers())
    return parser.parse_args(["sim", *argv])


def test_arguments() -> None:
    args = parse("--scenario", "s.toml", "--speed", "2.5", "--run-dir", "/r", "--seed", "7", "--json")
    assert (args.scenario, args.speed, args.run_dir, args.seed, args.json) == (
        Path("s.toml"),
        2.5,
        Path("/r"),
        7,
        True,
    )
    args = parse("--run-dir", "/r", "exec", "--module", "bob", "--", "cmd", "--flag", "--", "x")
    assert (args.run_dir, args.module, args.command) == (Path("/r"), "bob", ["--", "cmd", "--flag", "--", "x"])
    assert parse("exec", "--module", "bob", "--run-dir", "/q", "cmd").run_dir == Path("/q")


@pytest.mark.parametrize("wrong", [["--speed", "0"], ["--speed", "x"], ["--seed", "-1"], ["exec", "--module", "eve"]])
def test_wrong_arguments(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as e:
        parse(*wrong)
    assert e.value.code == 2


def test_run_dir_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    assert sim_cli.default_run_dir() == Path("/run/user/1/qmodd-sim")


def test_a_wrong_scenario_is_2_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.toml"
    path.write_text("[link]\nloss_db = -3\n")
    assert sim_cli.run(parse("--scenario", str(path))) == 2
    err = capsys.readouterr().err
    assert str(path) in err
    assert "loss_db" in err


def test_the_seed_can_be_overruled(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("seed = 5\n")
    assert sim_cli.load_scenario(path, None).seed == 5
    assert sim_cli.load_scenario(path, 6).seed == 6


def test_exec_without_a_program_is_2() -> None:
    assert sim_cli.run(parse("exec", "--module", "alice", "--")) == 2


@pytest.mark.processes
def test_exec_without_a_world(tmp_path: Path) -> None:
    body = "import os\ntry: os.open('/dev/i2c-1', os.O_RDWR)\nexcept OSError as e: raise SystemExit(e.errno)"
    args = parse("exec", "--module", "alice", "--run-dir", str(tmp_path), "--", sys.executable, "-c", body)
    assert sim_cli.run(args) == 6  # ENXIO


class StopsOnFlush(io.StringIO):
    """Asks for the end as soon as the endpoints have been printed."""

    def flush(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("as_json", [True, False])
def test_serves_until_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    out = StopsOnFlush()
    monkeypatch.setattr(sys, "stdout", out)
    if not as_json:
        monkeypatch.setattr(sim_cli, "_tell", lambda text: out.flush() if text.startswith("serving") else None)
    flags = ["--json"] if as_json else []
    assert sim_cli.run(parse("--run-dir", str(tmp_path), "--seed", "3", *flags)) == 0
    found = json.loads((tmp_path / "endpoints.json").read_text())
    assert set(found) == {"alice", "bob", "factory"}
    if as_json:
        assert json.loads(out.getvalue()) == found


def test_a_directory_that_is_served_already_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path):
        assert sim_cli.run(parse("--run-dir", str(tmp_path))) == 1
    assert "another world serves" in capsys.readouterr().err


EVERYTHING = """
    import json, socket, sys
    from smbus2 import SMBus
    import pyvisa, serial, spidev
    run_dir = sys.argv[1]
    found = json.load(open(run_dir + "/endpoints.json"))
    r = {}
    with SMBus(1) as bus:
        r["ina228"], r["tmp117"] = bus.read_word_data(0x40, 0x3E), bus.read_word_data(0x48, 0x0F)
    spi = spidev.SpiDev(); spi.open(1, 0); spi.mode = 1
    r["adc"] = len(spi.xfer2([0] * 30)); spi.close()
    with serial.Serial(found["bob"]["serial"]["tec"], 57600, timeout=3) as tec:
        request = b"#020001?IF"
        crc = 0
        for byte in request:
            crc ^= byte << 8
            for _ in range(8): crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
        tec.write(request + b"%04X\\r" % crc)
        r["tec"] = tec.read_until(b"\\r")[:7].decode()
    manager = pyvisa.ResourceManager("@py")
    for module, name in (("alice", "source"), ("bob", "tagger")):
        with manager.open_resource(found[module]["visa"][name]) as instrument:
            r[name] = instrument.query("*IDN?").split(",")[1]
    manager.close()
    host, port = found["bob"]["tcp"]["snspd"].split(":")
    with socket.create_connection((host, int(port)), 3) as snspd:
        snspd.sendall(b'{"request":"labelProps","value":"None"}')
        r["snspd"] = snspd.recv(1 << 16)[:1].decode()
    with socket.create_connection(found["bob"]["tcp"]["snspd_counts"].split(":"), 3) as counts:
        r["counts"] = counts.recv(1 << 16).count(b",") > 0
    print(json.dumps(r))
"""


@asynccontextmanager
async def emulator(run_dir: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, Any]]:
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "qmodd", "sim", "--run-dir", str(run_dir), "--json"],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60.0):
            yield process, json.loads(await process.stdout.readline())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


@pytest.mark.processes
async def test_the_whole_pair_through_real_libraries_before_and_after_a_crash(tmp_path: Path) -> None:
    async def look() -> Any:
        client = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "qmodd", "sim", "exec", "--module", "bob", "--run-dir", str(tmp_path), "--"],
            *[sys.executable, "-c", textwrap.dedent(EVERYTHING), str(tmp_path)],
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(client.communicate(), 30.0)
        assert client.returncode == 0
        return json.loads(out)

    async with emulator(tmp_path) as (world, endpoints):
        first = await look()
        assert first == {
            "ina228": 0x4954,
            "tmp117": 0x1701,
            "adc": 30,
            "tec": "!020001",
            "source": "SYMBOL-SOURCE",
            "tagger": "TIME-TAGGER",
            "snspd": "{",
            "counts": True,
        }
        world.kill()
        await world.wait()
    async with emulator(tmp_path) as (world, again):
        assert again == endpoints
        assert await look() == first
        world.terminate()
        assert await world.wait() == 0
