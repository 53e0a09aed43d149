"""`qmodctl` against a real Mosquitto with what modules have left there: status, fleet, watch, KPIs, and good errors."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from qmodd import ctl
from qmodd.broker import BrokerHandle, accepts, plan_broker, start_broker
from qmodd.clock import SystemClock
from qmodd.crypto.certificates import Issuer
from qmodd.ctl_client import Ctl
from qmodd.identity import ClientFiles
from qmodd.messages import ROOT
from qmodd.randomness import SystemRandomness
from qmodd.uplink.mqtt_link import BrokerSettings, open_link
from tests.ctl_fakes import Said, alarm, history, said, telemetry, topics
from tests.uplink_fakes import CLIENT, START, certificate

pytestmark = pytest.mark.processes
MANY = 200
NAMES = [f"QM-B-{i:04}" for i in range(1, MANY + 1)]


async def tell(url: str, told: dict[str, Said], retain: bool = True) -> None:
    async with open_link(BrokerSettings(url=url), "modules") as link:
        for module, messages in told.items():
            for topic, payload in topics(module, messages):
                await link.publish(topic, payload, retain=retain)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerHandle]:
    """A broker that knows 200 modules."""
    handle = asyncio.run(start_broker(tmp_path_factory.mktemp("fleet"), embedded=False))
    day = history("QM-B-0001", dip=True)
    told = {n: said(n, kpis=day) for n in NAMES}
    told["QM-B-0007"] = said("QM-B-0007", online=False, kpis=day)
    told["QM-B-0100"] = said("QM-B-0100", "safe", alarms=[alarm("cover-open", "critical"), alarm("no-keys")])
    asyncio.run(tell(handle.url, told))
    yield handle
    handle.stop()


@asynccontextmanager
async def speaking(url: str) -> AsyncIterator[None]:
    """Every module tells its numbers, twice a second."""

    async def speak() -> None:
        n = 0
        while True:
            await tell(url, {m: telemetry(n, 1000.0) for m in NAMES if m != "QM-B-0007"}, retain=False)
            n += 1
            await asyncio.sleep(0.5)

    task = asyncio.ensure_future(speak())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def run(*words: str, speak: str = "") -> int:
    """As `qmodctl` in a process of its own, in a thread while the modules speak."""
    if not speak:
        return ctl.main(list(words))

    async def both() -> int:
        async with speaking(speak):
            return await asyncio.to_thread(ctl.main, list(words))

    return asyncio.run(both())


def test_a_fleet_of_200(fleet: BrokerHandle, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fleet", "--broker", fleet.url, "--listen", "8", "--json", speak=fleet.url) == 1
    found = json.loads(capsys.readouterr().out)
    rows: list[dict[str, Any]] = found["modules"]
    assert [r["module"] for r in rows[:2]] == ["QM-B-0007", "QM-B-0100"]
    assert len(rows) == MANY
    totals = found["totals"]
    assert (totals["keying"], totals["offline"], totals["links"]) == (MANY - 2, 1, MANY)
    assert totals["alarms"] == {"critical": 1, "major": 1}
    assert totals["skr_bps"] == pytest.approx(1000.0 * (MANY - 1), rel=0.15)
    assert all(r["skr_bps"] for r in rows if r["online"])


def test_fleet_for_people(fleet: BrokerHandle, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fleet", "--broker", fleet.url, "--listen", "1") == 1
    out = capsys.readouterr().out
    assert "QM-B-0100  safe" in out
    assert "200 modules: 198 keying, 1 offline; alarms: 1 critical, 1 major" in out


def test_every_module_has_its_status(fleet: BrokerHandle, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--broker", fleet.url, "--json") == 1
    assert len(json.loads(capsys.readouterr().out)["modules"]) == MANY
    assert run("status", "QM-B-0003", "--broker", fleet.url) == 0


def test_kpis_as_they_are_retained(fleet: BrokerHandle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    day = ["--from", "2026-01-01", "--to", "2026-01-02", "--broker", fleet.url]
    assert run("kpi", "QM-B-0001", *day, "--min-availability", "0.99", "--json") == 1
    (told,) = json.loads(capsys.readouterr().out)["modules"]
    assert told["availability"] == pytest.approx(0.97847, abs=1e-4)
    assert run("kpi", *day, "--save", str(tmp_path / "kept"), "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["modules"]) == MANY - 1
    assert (tmp_path / "kept").read_bytes().count(b"\n") == MANY - 1


def test_watch_ends_after_its_time_with_a_picture(
    fleet: BrokerHandle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "watch.svg"
    words = ("watch", "QM-B-0001", "QM-B-0002", "--broker", fleet.url, "--seconds", "2.5", "--svg", str(picture))
    assert run(*words, speak=fleet.url) == 0
    out = capsys.readouterr().out
    assert "QM-B-0001 keying" in out
    assert "QBER Z" in out
    assert "QM-B-0003" not in out
    assert "QM-B-0002" in picture.read_text()


@pytest.mark.parametrize("command", ["status", "alarms", "calibrations", "selftest", "watch", "kpi"])
def test_a_module_that_is_not_known(fleet: BrokerHandle, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "QM-B-002O", "--broker", fleet.url) == 3
    said = capsys.readouterr().err
    assert said.startswith("qmodctl: the broker knows no module QM-B-002O; did you mean QM-B-0")


def test_a_request_to_one_that_is_not_known_or_offline(
    fleet: BrokerHandle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = str(ClientFiles(CLIENT, certificate()).save(tmp_path / "ann"))
    words = ["--broker", fleet.url, "--identity", identity]
    assert run("do", "ALICE", "stop", *words) == 3
    assert "it knows QM-B-0001, QM-B-0002" in capsys.readouterr().err
    assert run("do", "QM-B-0007", "stop", *words) == 3
    assert "QM-B-0007 is offline; it was last started at 2026-01-01" in capsys.readouterr().err
    assert run("do", "QM-B-0001", "stop", *words) == 3
    assert "QM-B-0001 does not listen: its uplink is not connected" in capsys.readouterr().err


def test_an_empty_broker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handle = asyncio.run(start_broker(tmp_path, embedded=False))
    try:
        assert run("fleet", "--broker", handle.url, "--listen", "0.5") == 1
        assert "the broker knows no module" in capsys.readouterr().out
        assert run("status", "QM-B-0001", "--broker", handle.url) == 3
        assert "and no other; is it the right broker?" in capsys.readouterr().err
    finally:
        handle.stop()


async def test_settings_and_commands_have_their_topics(fleet: BrokerHandle) -> None:
    """`set/<path>` goes where it says, signed for that topic."""
    made = Ctl(BrokerSettings(url=fleet.url), 1.0, SystemClock(), SystemRandomness())
    client = ClientFiles(CLIENT, certificate())
    request = await made.sign(client, "QM-B-0001", "set/keys.lifetime_s", {"value": 3600})
    assert json.loads(request.body)["topic"] == f"{ROOT}/QM-B-0001/set/keys.lifetime_s"
    retained = await made.retained("QM-B-0001", "alarm/+", "kpi", "state")
    assert set(retained["QM-B-0001"]) == {"kpi", "state"}


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A broker that wants a client's certificate, and the files of one client."""
    made = Issuer.new("test authority", START, START + timedelta(days=3650))
    times = (START, START + timedelta(days=3650))
    server = made.server("127.0.0.1", ["127.0.0.1"], *times)
    client = made.client("ann", "client", *times)
    files = {"ca.pem": made.to_pem()[0], "broker.pem": server[0], "broker.key": server[1]}
    for name, data in (files | {"ann.pem": client[0], "ann.key": client[1]}).items():
        (tmp_path / name).write_bytes(data)
    plan = plan_broker(tmp_path, embedded=False)
    config = tmp_path / "mosquitto.conf"
    config.write_text(
        config.read_text()
        + f"cafile {tmp_path}/ca.pem\ncertfile {tmp_path}/broker.pem\nkeyfile {tmp_path}/broker.key\n"
        + "require_certificate true\nuse_identity_as_username true\n"
    )
    with subprocess.Popen(plan.argv, stderr=subprocess.DEVNULL) as process:
        asyncio.run(_listening(plan.port))
        yield f"mqtts://127.0.0.1:{plan.port}", tmp_path
        process.terminate()


async def _listening(port: int) -> None:
    async with asyncio.timeout(10):
        while not await accepts(port):
            await asyncio.sleep(0.02)


def test_tls_with_a_certificate_of_one_s_own(
    tls: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, files = tls
    own = ["--ca", f"{files}/ca.pem", "--certificate", f"{files}/ann.pem", "--key", f"{files}/ann.key"]
    assert run("status", "--broker", url, *own) == 1
    assert "the broker knows no module" in capsys.readouterr().out
    assert run("status", "--broker", url, *own[:2]) == 3
    assert "wants --ca, --certificate and --key" in capsys.readouterr().err
    assert run("status", "--broker", url) == 3
    assert "certificate" in capsys.readouterr().err
    assert run("status", "--broker", url, "--ca", "/nowhere.pem") == 2
    assert "--ca /nowhere.pem: no such file" in capsys.readouterr().err
    for name, value in (("BROKER", url), ("CA", "ca.pem"), ("CERTIFICATE", "ann.pem"), ("KEY", "ann.key")):
        monkeypatch.setenv(f"QMODD_{name}", value if name == "BROKER" else str(files / value))
    assert run("status") == 1
    assert "the broker knows no module" in capsys.readouterr().out
