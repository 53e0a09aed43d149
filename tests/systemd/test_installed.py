"""The package in a Debian of its own: installed, run, killed, upgraded, rolled back, removed, as the how-tos say.

The tests are steps of one life and run in this order. They take minutes and need root, debootstrap and a mirror, so
they run when asked for: `make installed`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from qmodd.keys.schema import MIGRATIONS
from qmodd.messages import ROOT as MQTT
from sim.clock import ManualClock
from sim.individuals import factory_record
from sim.scenario import Scenario
from sim.world import World
from tests.docs.pages import DOCS, ROOT, blocks
from tests.kme.certificates import TestAuthority
from tests.systemd import container
from tests.systemd.container import Container
from tests.systemd.packages import build, copy, next_version
from tests.systemd.scripts import ASK, FILL, KEYS, KME

WANTED = bool(os.environ.get("QMODD_TEST_INSTALLED"))
WHY_NOT = container.why_not() if WANTED else "minutes long: `make installed` runs it"
pytestmark = [pytest.mark.processes, pytest.mark.timeout(900), pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]

INSTALL = {b.file: b.text for b in blocks(DOCS / "how-to" / "install.md") if b.file}
UPGRADE = {b.file: b.text for b in blocks(DOCS / "how-to" / "upgrade-and-roll-back.md") if b.file}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """This version's package and one of the version after it, which has one more migration and another example."""
    work = tmp_path_factory.mktemp("packages")
    source = copy(ROOT, work / "source")
    return build(source, work / "this"), build(next_version(source, work / "source-next"), work / "next")


@pytest.fixture(scope="module")
def box(packages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    root = tmp_path_factory.mktemp("debian") / "root"
    try:
        container.make(root)
        with container.booted(root) as booted:
            bring(booted, packages[0])
            yield booted
    finally:
        shutil.rmtree(root, ignore_errors=True)


def bring(box: Container, package: Path) -> None:
    """The only package in /root."""
    for old in box.path("/root").glob("qmodd_*.deb"):
        old.unlink()
    shutil.copy(package, box.path("/root"))


def active(box: Container, unit: str) -> bool:
    return box.run(f"systemctl is-active {unit}", check=False) == "active"


def pid(box: Container, unit: str) -> int:
    return int(box.run(f"systemctl show -P MainPID {unit}"))


def events(box: Container) -> list[dict[str, Any]]:
    file = box.path("/var/lib/qmodd/events.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


def happened(box: Container, name: str) -> list[dict[str, Any]]:
    return [e for e in events(box) if e["event"] == name]


def stored(box: Container) -> tuple[int, set[bytes]]:
    """Schema version of the key store, and the ids in it."""
    with closing(sqlite3.connect(f"file:{box.path('/var/lib/qmodd/keys.db')}?mode=ro", uri=True)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        return version, {row[0] for row in db.execute("SELECT id FROM keys")}


def states(box: Container) -> dict[str, int]:
    """Keys in core's store by state."""
    with closing(sqlite3.connect(f"file:{box.path('/var/lib/qmodd/keys.db')}?mode=ro", uri=True)) as db:
        return dict(db.execute("SELECT state, count(*) FROM keys GROUP BY state").fetchall())


def retained(box: Container, topic: str) -> dict[str, Any]:
    said = box.run(f"mosquitto_sub -h 127.0.0.1 -V 5 -W 10 -C 1 -t {MQTT}/QM-A-0001/{topic}")
    return dict(json.loads(said))


def test_the_same_source_gives_the_same_bytes(packages: tuple[Path, Path], tmp_path: Path) -> None:
    """Wherever it lies, and whenever it is built."""
    source = packages[0].parents[1] / "source"
    again = build(copy(source, tmp_path / "elsewhere"), tmp_path)
    for name in (again.name, next(tmp_path.glob("*.whl")).name):
        first, second = ((d / name).read_bytes() for d in (packages[0].parent, tmp_path))
        assert hashlib.sha256(first).hexdigest() == hashlib.sha256(second).hexdigest(), name


def test_it_installs_and_runs_nothing(box: Container) -> None:
    version = packages_version(packages_in(box))
    assert box.run(INSTALL["package.sh"]).endswith(f"qmodd {version}")
    assert not active(box, "qmodd-core")
    box.run("systemctl start qmodd-core", check=False)
    assert "unmet condition check (ConditionPathExists=/etc/qmodd/module.toml)" in box.run(
        "systemctl status qmodd-core", check=False
    )
    assert box.run("dpkg --verify qmodd") == ""
    modes = box.run("stat -c '%n %a %U:%G' /etc/qmodd/credentials /var/lib/qmodd /var/lib/qmodd-kms /run/qmodd")
    assert modes.splitlines() == [
        "/etc/qmodd/credentials 700 root:root",
        "/var/lib/qmodd 700 qmodd-core:qmodd-core",
        "/var/lib/qmodd-kms 700 qmodd-kms:qmodd-kms",
        "/run/qmodd 2750 qmodd-core:qmodd",
    ]
    groups = {user: set(box.run(f"id -nG {user}").split()) for user in ("qmodd-core", "qmodd-uplink", "qmodd-kms")}
    assert groups["qmodd-core"] >= {"qmodd", "qmodd-bus"}
    assert groups["qmodd-uplink"] == {"qmodd-uplink", "qmodd"}
    assert groups["qmodd-kms"] == {"qmodd-kms"}


def packages_in(box: Container) -> Path:
    (package,) = box.path("/root").glob("qmodd_*.deb")
    return package


def packages_version(package: Path) -> str:
    return package.name.split("_")[1]


def test_systemd_itself_finds_nothing_wrong(box: Container) -> None:
    units = "qmodd-core.service qmodd-uplink.service qmodd-receive@x.service qmodd-kme@x.service"
    assert box.run(f"systemd-analyze verify --recursive-errors=yes --man=no {units}") == ""


def test_it_is_configured_as_the_how_to_says(box: Container) -> None:
    box.run(INSTALL["provision.sh"])
    box.run("cp secrets/QM-A-0001/kek.key /root-kek && chown qmodd-core /root-kek")
    box.run(INSTALL["place.sh"], cwd="/root/secrets/QM-A-0001")
    record = factory_record(World(Scenario(seed=1), ManualClock()).alice.individual, 1)
    box.path("/etc/qmodd/factory.json").write_text(json.dumps(record))
    # A broker of its own instead of the site's.
    lab = r"s|^broker = .*|broker = \"mqtt://127.0.0.1:1883\"|; s/^\(ca\|certificate\|key\) = /# &/"
    box.run(f'sed -i "{lab}" /etc/qmodd/alice.toml')
    said = box.run(INSTALL["configure.sh"], cwd="/etc/qmodd")
    assert (
        said.splitlines()
        == [
            "/etc/qmodd/module.toml: in order, but for what only the service is given: pair.key_encryption_key = "
            "'credential:kek', uplink.identity = 'credential:module-key'",
        ]
        * 2
    )
    assert box.run(INSTALL["beside.sh"]) == "/etc/qmodd/module.toml: in order"


def test_it_starts_and_the_noc_hears_it(box: Container) -> None:
    box.run("systemctl start mosquitto")
    box.run(INSTALL["start.sh"])
    box.until("uplink has core", lambda: bool(happened(box, "uplink.connected")))
    assert retained(box, "alive")["state"] == "online"
    # There is no hardware here: it says so, and stays dark.
    told = "safe: the photonic module (not seen yet) is out: no part of it answers; waiting for one"
    box.until("it looks for its module", lambda: box.run("systemctl show -P StatusText qmodd-core") == told)
    assert retained(box, "state")["activity"]["value"] == "safe"


def test_the_two_are_apart(box: Container) -> None:
    core, uplink = pid(box, "qmodd-core"), pid(box, "qmodd-uplink")
    users = box.run(f"stat -c %U /proc/{core} /proc/{uplink}").split()
    assert users == ["qmodd-core", "qmodd-uplink"]
    assert box.run("stat -c '%a %U:%G' /run/qmodd/door.sock") == "660 qmodd-core:qmodd"
    # Seen from inside uplink's own sandbox, with uplink's user.
    inside = f"nsenter -t {uplink} -m --setuid $(id -u qmodd-uplink) --setgid $(id -g qmodd-uplink)"
    for secret in (
        "/var/lib/qmodd/keys.db",
        "/etc/qmodd/credentials/kek.cred",
        "/run/credentials/qmodd-core.service/kek",
    ):
        said = box.run(f"{inside} cat {secret}", check=False)
        assert "Permission denied" in said or "No such file" in said, (secret, said)
    assert "state_dir" in box.run(f"{inside} cat /etc/qmodd/module.toml")
    for unit in ("qmodd-core", "qmodd-uplink"):
        limits = box.run(f"cat /proc/{pid(box, unit)}/limits")
        assert next(line for line in limits.splitlines() if "core file" in line).split()[4:6] == ["0", "0"]
        status = box.run(f"cat /proc/{pid(box, unit)}/status")
        assert "NoNewPrivs:\t1" in status
        assert "CapEff:\t0000000000000000" in status
        assert "Seccomp:\t2" in status


def test_the_worker_runs_inside_the_sandbox(box: Container) -> None:
    """Kernels are compiled, at the lowest priority, into core's own cache."""
    core = pid(box, "qmodd-core")
    box.until("kernels are compiled", lambda: any(box.path("/var/cache/qmodd").rglob("*.nbc")), 120.0)
    children = box.run(f"cat /proc/{core}/task/{core}/children").split()
    assert "SCHED_IDLE" in "".join(box.run(f"chrt -p {child}") for child in children)
    assert not happened(box, "worker.died")


def test_a_killed_core_is_followed_by_safe_outputs_and_a_new_core(box: Container) -> None:
    core, uplink = pid(box, "qmodd-core"), pid(box, "qmodd-uplink")
    box.run(f"kill -KILL {core}")
    box.until("a new core", lambda: active(box, "qmodd-core") and pid(box, "qmodd-core") not in (0, core))
    (made_safe,) = happened(box, "outputs.made_safe")
    assert made_safe["why"] == "core ended: signal, killed KILL"
    # No hardware: it must not call that safe.
    assert made_safe["ok"] is False
    starts = [e["seq"] for e in happened(box, "core.started")]
    assert starts[-2] < made_safe["seq"] < starts[-1]
    assert pid(box, "qmodd-uplink") == uplink
    box.until("uplink has the new core", lambda: len(happened(box, "uplink.connected")) == 2)
    box.until("the NOC hears it", lambda: retained(box, "alive")["state"] == "online")


def test_a_core_that_hangs_is_started_anew(box: Container) -> None:
    core = pid(box, "qmodd-core")
    box.run(f"kill -STOP {core}")
    box.until("the watchdog", lambda: active(box, "qmodd-core") and pid(box, "qmodd-core") not in (0, core), 60.0)
    assert happened(box, "outputs.made_safe")[-1]["why"].startswith("core ended: watchdog, ")


def test_a_stop_is_orderly(box: Container) -> None:
    """Also without hardware: `safe-outputs` says what it could not reach."""
    box.run("systemctl stop qmodd-core")
    assert [e["event"] for e in events(box)[-2:]] == ["core.stopped", "outputs.made_safe"]
    assert events(box)[-1]["why"] == "core ended as it should"
    assert "platform: " in events(box)[-1]["not_safe"]


def test_a_store_with_keys(box: Container) -> None:
    box.path("/root/fill.py").write_text(FILL)
    box.run("runuser -u qmodd-core -- /opt/qmodd/bin/python - < /root/fill.py")
    version, ids = stored(box)
    assert version == len(MIGRATIONS)
    assert len(ids) == KEYS
    box.run("systemctl start qmodd-core")


def test_a_receiver_takes_the_keys(box: Container) -> None:
    box.path("/etc/qmodd/receive-kms-a.toml").write_text(INSTALL["receive-kms-a.toml"])
    box.run("cp QM-A-0001.pub kms-a.key /root/ && chmod 600 /root/kms-a.key", cwd="/root/secrets/site")
    box.run(INSTALL["receive.sh"])
    box.until("the keys are acknowledged", lambda: states(box) == {"acknowledged": KEYS})
    assert box.run(f"stat -c %U /proc/{pid(box, 'qmodd-receive@kms-a')}") == "qmodd-kms"


def test_a_key_server_serves_that_store(box: Container, tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    authority.issue("kme-a")
    authority.issue("SAE-A")
    box.path("/etc/qmodd/kme-a.toml").write_text(KME)
    for name in ("ca.pem", "kme-a.pem", "kme-a.key", "SAE-A.pem", "SAE-A.key"):
        shutil.copy(tmp_path / name, box.path("/var/lib/qmodd-kms"))
    box.run("chown qmodd-kms:qmodd-kms /var/lib/qmodd-kms/* && chmod 600 /var/lib/qmodd-kms/*.key")
    box.run("systemctl start qmodd-kme@a")
    # The container has no client: what asks is this package's own Python.
    box.path("/root/ask.py").write_text(ASK)
    told = json.loads(box.run("/opt/qmodd/bin/python /root/ask.py"))
    assert (told["source_KME_ID"], told["slave_SAE_ID"]) == ("KME-A", "SAE-B")
    # No module at the far end has said that it has them: none may be handed out.
    assert told["stored_key_count"] == 0
    box.run("systemctl stop qmodd-kme@a")


def test_upgrade(box: Container, packages: tuple[Path, Path]) -> None:
    _, ids = stored(box)
    mine, core, seq = box.path("/etc/qmodd/alice.toml").read_text(), pid(box, "qmodd-core"), len(events(box))
    bring(box, packages[1])
    assert box.run(UPGRADE["upgrade.sh"]).splitlines()[-2:] == ["active", "active"]
    assert box.run("qmodd --version") == f"qmodd {packages_version(packages[1])}"
    assert pid(box, "qmodd-core") != core
    # The configuration is mine; the example that has changed lies beside it.
    assert box.path("/etc/qmodd/alice.toml").read_text() == mine
    assert "a word more" in box.path("/etc/qmodd/alice.toml.dpkg-dist").read_text()
    box.until("the new core has the store", lambda: stored(box)[0] == len(MIGRATIONS) + 1)
    assert stored(box)[1] == ids
    numbers = [e["seq"] for e in events(box)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > seq
    assert happened(box, "core.started")[-1]["version"] == packages_version(packages[1])


def test_roll_back(box: Container, packages: tuple[Path, Path]) -> None:
    _, ids = stored(box)
    mine = box.path("/etc/qmodd/alice.toml").read_text()
    bring(box, packages[0])
    assert box.run(UPGRADE["roll-back.sh"]).splitlines()[-2:] == ["active", "active"]
    assert box.run("qmodd --version") == f"qmodd {packages_version(packages[0])}"
    assert box.path("/etc/qmodd/alice.toml").read_text() == mine
    box.until(
        "the old core works", lambda: happened(box, "core.started")[-1]["version"] == packages_version(packages[0])
    )
    version, now = stored(box)
    assert version == len(MIGRATIONS) + 1
    assert now == ids
    numbers = [e["seq"] for e in events(box)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert box.run("systemctl is-active qmodd-core") == "active"


def test_a_configuration_that_is_refused_is_said_and_nothing_is_started(
    box: Container, packages: tuple[Path, Path]
) -> None:
    box.run("sed -i 's/^key_bits = 256/key_bits = 100/' /etc/qmodd/alice.toml")
    said = box.run("apt-get install -y --reinstall -o Dpkg::Options::=--force-confold ./qmodd_*.deb")
    assert "keys.key_bits = 100: Input should be 128, 192, 256 or 512" in said
    assert "qmodd: qmodd-core.service is not started again: see above" in said
    assert not active(box, "qmodd-core")
    box.run("sed -i 's/^key_bits = 100/key_bits = 256/' /etc/qmodd/alice.toml")


def test_removed_and_purged(box: Container) -> None:
    box.run("systemctl start qmodd-core qmodd-uplink")
    box.run("apt-get remove -y qmodd")
    assert not active(box, "qmodd-core")
    assert box.path("/etc/qmodd/credentials/kek.cred").exists()
    assert not box.path("/opt/qmodd").exists()
    said = box.run("apt-get purge -y qmodd")
    assert "qmodd: /var/lib/qmodd stays" in said
    assert not box.path("/etc/qmodd").exists()
    assert stored(box)[1]
