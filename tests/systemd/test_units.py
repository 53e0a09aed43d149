"""The units and what lies beside them: systemd itself has nothing to say, and each file fits the others."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from qmodd.cli import COMMANDS
from tests.docs.pages import ROOT

SYSTEMD = ROOT / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
SYSUSERS = [line.split() for line in (SYSTEMD / "qmodd.sysusers").read_text().splitlines() if line[:1] in "gum"]
analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def settings(unit: Path) -> dict[str, list[str]]:
    """Every value of [Service], in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in unit.read_text().partition("[Service]")[2].partition("[Install]")[0].splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def check(systemd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(systemd / "check")], capture_output=True, text=True, timeout=60)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(SYSTEMD, tmp_path / "systemd")


@analyze
def test_systemd_finds_nothing_wrong_and_little_exposed() -> None:
    done = check(SYSTEMD)
    assert (done.returncode, done.stderr) == (0, "")
    levels = {name: float(level) for name, level in re.findall(r"level for (\S+): ([\d.]+)", done.stdout)}
    assert len(levels) == len(UNITS)
    assert max(levels.values()) <= 1.5


@analyze
@pytest.mark.parametrize(
    ("unit", "was", "now", "said"),
    [
        ("qmodd-core", "ProtectHome=yes", "ProtectHom=yes", "Unknown key 'ProtectHom'"),
        ("qmodd-uplink", "/opt/qmodd/bin/qmodd uplink", "/opt/qmodd/bin/qmod uplink", "is not executable"),
        ("qmodd-receive@", "CapabilityBoundingSet=\n", "", ""),
    ],
    ids=["typing error", "no such program", "too open"],
)
def test_the_check_can_fail(copy: Path, unit: str, was: str, now: str, said: str) -> None:
    file = copy / f"{unit}.service"
    assert was in file.read_text()
    file.write_text(
        file.read_text().replace(was, now).replace("NoNewPrivileges=yes", "" if not now else "NoNewPrivileges=yes")
    )
    done = check(copy)
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda u: u.stem)
def test_what_every_unit_keeps(unit: Path) -> None:
    found = settings(unit)
    for key, value in (
        ("LimitCORE", "0"),
        ("MemorySwapMax", "0"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("UMask", "0077"),
        ("RestartPreventExitStatus", "2"),
        ("DevicePolicy", "closed"),
    ):
        assert found[key] == [value], key
    (start,) = found["ExecStart"]
    program, command, *_ = start.split()
    assert program == "/opt/qmodd/bin/qmodd"
    assert command in COMMANDS


def test_only_core_gets_devices_and_secrets() -> None:
    by_name = {unit.stem: settings(unit) for unit in UNITS}
    assert [n for n, s in by_name.items() if "DeviceAllow" in s] == ["qmodd-core"]
    assert [n for n, s in by_name.items() if s["PrivateDevices"] != ["yes"]] == ["qmodd-core"]
    assert [n for n, s in by_name.items() if "LoadCredentialEncrypted" in s] == ["qmodd-core"]
    assert by_name["qmodd-core"]["IPAddressDeny"] == ["any"]
    assert by_name["qmodd-core"]["ExecStopPost"] == [
        "/opt/qmodd/bin/qmodd safe-outputs --config /etc/qmodd/module.toml"
    ]
    assert "-/var/lib/qmodd" in by_name["qmodd-uplink"]["InaccessiblePaths"][0]


def test_the_watchdog_is_slower_than_the_boards_and_told_of_slow_stops() -> None:
    from qmodd.daemon import STOP_S, STOP_UPLINK_S

    for name, stop_s in (("qmodd-core", STOP_S), ("qmodd-uplink", STOP_UPLINK_S)):
        found = settings(SYSTEMD / f"{name}.service")
        assert found["Type"] == ["notify"]
        assert float(found["WatchdogSec"][0]) >= 5.0
        assert float(found["TimeoutStopSec"][0]) > stop_s


def test_users_and_groups_of_units_and_directories_are_made() -> None:
    users = {line[1] for line in SYSUSERS if line[0] == "u"}
    groups = users | {line[1] for line in SYSUSERS if line[0] == "g"} | {"root"}
    for unit in UNITS:
        found = settings(unit)
        assert set(found["User"]) <= users
        assert {g for v in (*found["Group"], *found["SupplementaryGroups"]) for g in v.split()} <= groups
    for line in (SYSTEMD / "qmodd.tmpfiles").read_text().splitlines():
        if not line.startswith("#"):
            _, _, mode, user, group, _ = line.split()
            assert user in users | {"root"}
            assert group in groups
            assert int(mode[-1]) in (0, 5)
    rules = (SYSTEMD / "70-qmodd.rules").read_text()
    assert set(re.findall(r'GROUP="([^"]+)"', rules)) <= groups


def test_device_rules_name_the_ports_that_the_configurations_use() -> None:
    linked = set(re.findall(r'SYMLINK\+="([^"]+)"', (SYSTEMD / "70-qmodd.rules").read_text()))
    used = {p for role in ("alice", "bob") for p in re.findall(r'"serial:/dev/(\w+)"', _config(role))}
    assert used <= linked
    for line in (SYSTEMD / "70-qmodd.rules").read_text().splitlines():
        for part in filter(None, (p.strip() for p in ("" if line.startswith("#") else line).split(","))):
            assert re.fullmatch(r'[A-Z]+(\{\w+\})?(==|\+=|=)"[^"]+"', part), part


def _config(role: str) -> str:
    return (ROOT / "configs" / f"{role}.toml").read_text()


def test_the_helper_gives_what_the_service_gives() -> None:
    """`qmodd-as-core` runs with core's user, groups and credentials."""
    helper, found = (SYSTEMD / "qmodd-as-core").read_text(), settings(SYSTEMD / "qmodd-core.service")
    for key in ("User", "Group", "LoadCredentialEncrypted"):
        for value in found[key]:
            assert f"-p {key}={value}" in helper
    assert f'-p SupplementaryGroups="{found["SupplementaryGroups"][0]}"' in helper


def test_units_are_ini_files() -> None:
    for unit in UNITS:
        parser = configparser.RawConfigParser(strict=False, allow_no_value=False)
        parser.read_string(unit.read_text())
        assert {"Unit", "Service", "Install"} <= set(parser.sections())
