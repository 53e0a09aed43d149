"""Packages of this tree, and of the version that might come after it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.docs.pages import ROOT

# Debian's own, which the package is for: this process may run on another.
PYTHON = "/usr/bin/python3"
PARTS = ("qmodd", "drivers", "calibration", "sim", "configs", "docs", "systemd")
FILES = ("pyproject.toml", "README.md", "LICENSE", ".gitignore")


def build(source: Path, out: Path) -> Path:
    """The package's file, with the wheel beside it. Dependencies are built once and kept in build/."""
    wheels = ROOT / "build" / "wheels-debian"
    run = [PYTHON, str(source / "systemd/deb/build.py"), "--out", str(out), "--wheels", str(wheels)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def copy(source: Path, directory: Path) -> Path:
    """Of what a package is built from."""
    directory.mkdir(parents=True)
    for part in PARTS:
        shutil.copytree(source / part, directory / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(source / name, directory)
    return directory


def next_version(source: Path, directory: Path) -> Path:
    """A copy as the next version: another number, one more migration, a changed example."""
    copy(source, directory)
    (was,) = re.findall(r'^version = "(.+)"$', (directory / "pyproject.toml").read_text(), re.M)
    now = f"{was}.1"
    _change(directory / "pyproject.toml", f'version = "{was}"', f'version = "{now}"')
    _change(directory / "qmodd/__init__.py", f'"{was}"', f'"{now}"')
    changelog = directory / "systemd/deb/changelog"
    entry = re.match(r".*?^ -- .*?\n", changelog.read_text(), re.S | re.M)
    assert entry is not None
    changelog.write_text(entry[0].replace(f"({was})", f"({now})") + "\n" + changelog.read_text())
    migrated = "    Migration(len(_KNOWN) + 1, (\"ALTER TABLE blocks ADD COLUMN note TEXT NOT NULL DEFAULT ''\",)),\n"
    schema = directory / "qmodd/keys/schema.py"
    text = schema.read_text()
    assert text.count("\nMIGRATIONS = ") == 1
    schema.write_text(text.replace("\nMIGRATIONS = ", "\n_KNOWN = ") + f"MIGRATIONS = (\n    *_KNOWN,\n{migrated})\n")
    _change(directory / "configs/alice.toml", "# A transmitter.", "# A transmitter, a word more.")
    _change(directory / "configs/alice.toml", "[module]\n", "[module] # a word more\n")
    return directory


def _change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file.name}: {old!r} is there {text.count(old)} times"
    file.write_text(text.replace(old, new))
