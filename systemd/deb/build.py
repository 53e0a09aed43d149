#!/usr/bin/env python3
"""Builds the Debian package: qmodd in a virtual environment of its own under /opt/qmodd, with all that it needs.

    python3 systemd/deb/build.py --out dist

Runs with the Python that the package is for (Debian 12: 3.11) and needs pip, dpkg-deb and a compiler for the one
dependency that has no wheels. Dependencies are those of requirements.lock and no others, checked by their digests.
Everything that could differ from one day to the next follows the date of the changelog's first entry.
"""

from __future__ import annotations

import argparse
import compileall
import gzip
import hashlib
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from email.utils import parsedate_to_datetime
from pathlib import Path

from production import production

HERE = Path(__file__).resolve().parent
PREFIX = Path("opt/qmodd")
VERSION_OF = f"{sys.version_info.major}.{sys.version_info.minor}"
ENTRY_POINTS = {"qmodd": "qmodd.cli", "qmodctl": "qmodd.ctl"}
SCRIPT = """\
#!/opt/qmodd/bin/python
import sys

from {module} import main

if __name__ == "__main__":
    sys.exit(main())
"""
CONTROL = """\
Package: qmodd
Version: {version}
Architecture: {architecture}
Maintainer: qmodd <qmodd@example.org>
Installed-Size: {size_kib}
Depends: python{python}, libc6 (>= 2.34), systemd (>= 250), util-linux
Suggests: mosquitto
Section: net
Priority: optional
Description: control daemon of rack-mount photonic-chip QKD modules
 Bring-up, calibration, locks, decoy-state BB84 key distillation and delivery of one module, over MQTT; with a
 reference receiver of keys and an ETSI GS QKD 014 server. Core and uplink run as services of their own users.
"""


class BuildError(Exception):
    """One line that says what is missing or wrong."""


def first_entry(changelog: str) -> tuple[str, int]:
    """Version and date (s since 1970) of a Debian changelog's newest entry."""
    version = re.match(r"qmodd \(([^)]+)\)", changelog)
    date = re.search(r"^ -- .*>  (.+)$", changelog, re.M)
    if version is None or date is None:
        raise BuildError("changelog: no first entry of the form `qmodd (VERSION) ...` with ` -- NAME <MAIL>  DATE`")
    return version[1], int(parsedate_to_datetime(date[1]).timestamp())


def build_wheel(source: Path, out: Path, epoch: int) -> Path:
    """qmodd's own wheel. The same source and date give the same bytes."""
    _pip("wheel", "--no-deps", "--no-cache-dir", "--wheel-dir", str(out), str(source), epoch=epoch)
    return _only(out, "qmodd-*.whl")


def build_dependencies(lock: Path, out: Path, epoch: int) -> None:
    """Wheels of everything in the lock, each of a digest that is in the lock; built here where there is only source."""
    _pip("wheel", "--no-deps", "--require-hashes", "--wheel-dir", str(out), "-r", str(lock), epoch=epoch)


def _pip(*arguments: str, epoch: int) -> None:
    environ = {
        **os.environ,
        "SOURCE_DATE_EPOCH": str(epoch),
        "PIP_CONSTRAINT": str(HERE / "build-requirements.txt"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    command = [sys.executable, "-m", "pip", arguments[0], "--quiet", *arguments[1:]]
    if subprocess.run(command, env=environ).returncode:
        raise BuildError(f"failed: {' '.join(command)}")


def _only(directory: Path, pattern: str) -> Path:
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise BuildError(f"{directory}: {len(found)} files {pattern}; there must be one")
    return found[0]


def install(stage: Path, wheels: list[Path], own: Path) -> None:
    """The environment as `python -m venv` and pip would make it at /opt/qmodd, without running anything there."""
    prefix = stage / PREFIX
    packages = prefix / "lib" / f"python{VERSION_OF}" / "site-packages"
    packages.mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python").symlink_to(f"/usr/bin/python{VERSION_OF}")
    (prefix / "bin" / "python3").symlink_to("python")
    (prefix / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {VERSION_OF}\n"
    )
    with tempfile.TemporaryDirectory(prefix="qmodd-wheels-") as together:
        for wheel in (*wheels, own):
            (Path(together) / wheel.name).symlink_to(wheel.resolve())
        # By name: a path would be recorded, and with it where this was built.
        named = ["==".join(wheel.name.split("-")[:2]) for wheel in sorted([*wheels, own])]
        places = ("--no-index", "--find-links", together, "--target", str(packages))
        _pip("install", "--no-deps", "--no-compile", "--no-cache-dir", *places, *named, epoch=0)
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for name, module in ENTRY_POINTS.items():
        script = prefix / "bin" / name
        script.write_text(SCRIPT.format(module=module))
        script.chmod(0o755)
    compile_all(stage, packages)


def compile_all(stage: Path, packages: Path) -> None:
    """Byte code that is never checked against its source: the directory is read-only, and start-up is not."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(packages, quiet=2, stripdir=str(stage), prependdir="/", invalidation_mode=mode, workers=1)


def lay_out(stage: Path, source: Path, changelog: str) -> None:
    """Units, rules, users, configuration, documentation."""
    systemd = source / "systemd"
    for unit in systemd.glob("*.service"):
        _put(unit, stage / "usr/lib/systemd/system" / unit.name)
    _put(systemd / "qmodd.sysusers", stage / "usr/lib/sysusers.d/qmodd.conf")
    _put(systemd / "qmodd.tmpfiles", stage / "usr/lib/tmpfiles.d/qmodd.conf")
    _put(systemd / "70-qmodd.rules", stage / "usr/lib/udev/rules.d/70-qmodd.rules")
    _put(systemd / "qmodd-as-core", stage / "usr/sbin/qmodd-as-core", 0o755)
    (stage / "usr/bin").mkdir(parents=True)
    for name in ENTRY_POINTS:
        (stage / "usr/bin" / name).symlink_to(f"/{PREFIX}/bin/{name}")
    for role in ("alice", "bob"):
        target = stage / "etc/qmodd" / f"{role}.toml"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(production(role, (source / "configs" / f"{role}.toml").read_text()))
    doc = stage / "usr/share/doc/qmodd"
    shutil.copytree(source / "docs", doc / "docs")
    shutil.copytree(source / "configs", doc / "examples")
    _put(source / "README.md", doc / "README.md")
    _put(source / "LICENSE", doc / "copyright")
    (doc / "changelog.Debian.gz").write_bytes(gzip.compress(changelog.encode(), mtime=0))


def _put(source: Path, target: Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def control_files(stage: Path, version: str) -> None:
    control = stage / "DEBIAN"
    control.mkdir()
    files = sorted(p for p in stage.rglob("*") if p.is_file() and not p.is_symlink() and control not in p.parents)
    size_kib = sum(p.stat().st_size for p in files) // 1024
    architecture = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
    fields = {
        "version": version,
        "architecture": architecture.stdout.strip(),
        "size_kib": size_kib,
        "python": VERSION_OF,
    }
    (control / "control").write_text(CONTROL.format(**fields))
    conffiles = sorted(f"/{p.relative_to(stage)}" for p in files if p.is_relative_to(stage / "etc"))
    (control / "conffiles").write_text("".join(f"{name}\n" for name in conffiles))
    sums = [f"{hashlib.md5(p.read_bytes()).hexdigest()}  {p.relative_to(stage)}\n" for p in files]
    (control / "md5sums").write_text("".join(sums))
    for name in ("postinst", "prerm", "postrm"):
        _put(HERE / name, control / name, 0o755)


def normalise(stage: Path, epoch: int) -> None:
    """Modes and times that do not depend on who built it and when."""
    for path in [stage, *stage.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def build(source: Path, out: Path, wheels: Path, version: str | None = None) -> Path:
    """The package's file. `wheels`: where the dependencies' are kept from one build to the next."""
    changelog = (source / "systemd/deb/changelog").read_text()
    named, epoch = first_entry(changelog)
    lock = source / "systemd/deb/requirements.lock"
    wheels = wheels / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    if not wheels.exists():
        fresh = Path(tempfile.mkdtemp(dir=_made(wheels.parent)))
        build_dependencies(lock, fresh, epoch)
        fresh.rename(wheels)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="qmodd-deb-") as temporary:
        stage = Path(temporary) / "stage"
        stage.mkdir()
        own = build_wheel(source, Path(temporary), epoch)
        if (built := own.name.split("-")[1]) != named:
            raise BuildError(
                f"version {built} in pyproject.toml, {named} in systemd/deb/changelog; they must be the same"
            )
        install(stage, sorted(wheels.glob("*.whl")), own)
        lay_out(stage, source, changelog)
        normalise(stage, epoch)
        control_files(stage, version or named)
        normalise(stage / "DEBIAN", epoch)
        package = out / f"qmodd_{version or named}_{_architecture(stage)}.deb"
        environ = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
        run = [
            "dpkg-deb",
            "--root-owner-group",
            "-Zzstd",
            "-z6",
            "--threads-max=2",
            "--build",
            str(stage),
            str(package),
        ]
        if subprocess.run(run, env=environ, stdout=subprocess.DEVNULL).returncode:
            raise BuildError(f"failed: {' '.join(run)}")
        shutil.copy(own, out)
    return package


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _architecture(stage: Path) -> str:
    return re.search(r"^Architecture: (.+)$", (stage / "DEBIAN/control").read_text(), re.M)[1]  # type: ignore[index]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, default=HERE.parents[1], help="source tree, default this one")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="directory for package and wheel")
    parser.add_argument("--wheels", type=Path, help="keep the dependencies' wheels here; default build/wheels-*")
    args = parser.parse_args()
    wheels = args.wheels or args.source / "build" / f"wheels-{sysconfig.get_platform()}-{VERSION_OF}"
    try:
        sys.stdout.write(f"{build(args.source.resolve(), args.out, wheels)}\n")
    except BuildError as e:
        sys.stderr.write(f"{e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
