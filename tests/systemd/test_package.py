"""What the package is made of, without building it: configurations, scripts, changelog, lock."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

from qmodd import __version__
from qmodd.config import ConfigError, load
from qmodd.config_files import MINIMUM_PRE_SHARED_BYTES, left_unresolved
from qmodd.daemon import check_drivers
from tests.docs.pages import ROOT

DEB = ROOT / "systemd" / "deb"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _module(name: str) -> ModuleType:
    """One of systemd/deb, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DEB / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


production = _module("production").production
build = _module("build")


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """/etc/qmodd after the how-to, but for what has absolute paths."""
    for name in ("factory.json", "authority.pub", "kms-a.pub", "kms-b.pub"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "tls").mkdir()
    for name in ("ca.pem", "tls.pem", "tls.key"):
        (tmp_path / "tls" / name).write_text("-")
        (tmp_path / "tls" / name).chmod(0o640)
    return tmp_path


@pytest.mark.parametrize("role", ["alice", "bob"])
def test_the_examples_are_accepted(role: str, etc: Path) -> None:
    """By each process for what is its own; core's secrets are credentials."""
    text = production(role, (ROOT / "configs" / f"{role}.toml").read_text())
    psk = etc / "pre-shared.key"
    psk.write_bytes(bytes(MINIMUM_PRE_SHARED_BYTES))
    assert "/var/lib/qmodd/secrets/pre-shared.key" in text
    path = etc / f"{role}.toml"
    path.write_text(text.replace("/var/lib/qmodd/secrets/pre-shared.key", str(psk)))
    core = load(path, "core", given=False)
    check_drivers(core, path)
    assert left_unresolved(core) == [
        "pair.key_encryption_key = 'credential:kek'",
        "uplink.identity = 'credential:module-key'",
    ]
    uplink = load(path, "uplink").uplink
    assert (str(uplink.door), uplink.door_shared) == ("/run/qmodd/door.sock", True)
    assert uplink.key == etc / "tls" / "tls.key"
    with pytest.raises(
        ConfigError, match=r"pair\.key_encryption_key = 'credential:kek': \$CREDENTIALS_DIRECTORY is not"
    ):
        load(path, "core")


@pytest.mark.parametrize("role", ["alice", "bob"])
def test_the_examples_keep_every_key(role: str) -> None:
    source = (ROOT / "configs" / f"{role}.toml").read_text()
    shipped, made = tomllib.loads(source), tomllib.loads(production(role, source))
    assert made.keys() == shipped.keys()
    for section, values in shipped.items():
        if isinstance(values, dict):
            assert values.keys() <= made[section].keys()


def test_a_place_that_would_stay_is_an_error() -> None:
    text = (ROOT / "configs" / "alice.toml").read_text()
    with pytest.raises(ValueError, match=r"alice\.toml: 'state_dir' is there 0 times"):
        production("alice", text.replace("state_dir", "state_directory"))


def test_versions_agree() -> None:
    version, epoch = build.first_entry((DEB / "changelog").read_text())
    assert version == PROJECT["version"] == __version__
    assert datetime.fromtimestamp(epoch, UTC).year >= 2025


@pytest.mark.parametrize("text", ["", "qmodd 0.1 stable", "qmodd (0.1) stable\n\n  * x\n"])
def test_a_changelog_without_a_date_is_refused(text: str) -> None:
    with pytest.raises(build.BuildError, match="changelog: no first entry"):
        build.first_entry(text)


@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_maintainer_scripts_are_shell(name: str) -> None:
    done = subprocess.run(["/bin/sh", "-n", str(DEB / name)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    text = (DEB / name).read_text()
    assert text.startswith("#!/bin/sh\n")
    assert "\nset -e\n" in text


def test_everything_that_is_needed_is_locked_with_its_digest() -> None:
    lock = (DEB / "requirements.lock").read_text()
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", lock, re.M))
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["kernels"]]
    wanted += PROJECT["optional-dependencies"].get("kme", [])
    names = {re.match(r"[\w.-]+", w)[0].lower().replace("_", "-") for w in wanted}  # type: ignore[index]
    assert names <= {name.lower() for name in locked}
    for entry in re.split(r"^(?=\w)", lock, flags=re.M)[1:]:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_entry_points_are_those_of_the_project() -> None:
    assert {name: f"{module}:main" for name, module in build.ENTRY_POINTS.items()} == PROJECT["scripts"]
