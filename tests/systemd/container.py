"""A Debian of its own, made by debootstrap and booted with its own systemd, to install the package in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

INCLUDED = "systemd,systemd-sysv,udev,dbus,python3,mosquitto,mosquitto-clients"
BOOT_S, STOP_S, MAKE_S = 60.0, 30.0, 900.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NEEDED = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "dpkg-deb": "dpkg",
    "nsenter": "util-linux",
}


def why_not() -> str:
    """Why no such container can be had here; "" when it can."""
    if os.geteuid() != 0:
        return "only root can make and boot a Debian of its own"
    missing = [package for tool, package in NEEDED.items() if shutil.which(tool, path=PATH) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if _release() != "bookworm":
        return "the package is tried on Debian 12, which this host cannot make"
    return ""


def _release() -> str:
    fields = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return fields.get("VERSION_CODENAME", "").strip('"')


def _mirror() -> str:
    """Where this host's apt gets Debian from."""
    run = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    for line in subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines():
        uri, release, component = line.split()
        if (release, component) == ("bookworm", "main"):
            return uri
    return "http://deb.debian.org/debian"


def make(root: Path) -> None:
    """A minimal Debian 12 in a directory. Raises subprocess.CalledProcessError with what debootstrap said."""
    run = ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", "bookworm", str(root), _mirror()]
    subprocess.run(run, check=True, capture_output=True, text=True, timeout=MAKE_S, env={**os.environ, "PATH": PATH})


@dataclass
class Container:
    """A booted one. `run` is a shell in it, as root."""

    root: Path
    leader: int
    said: list[str] = field(default_factory=list)

    def run(self, script: str, *, check: bool = True, cwd: str = "/root", timeout: float = 180.0) -> str:
        """What the commands print, errors included. Raises AssertionError for a status that is not 0."""
        inside = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "--root", "--wd"]
        environ = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        shell = ["/bin/bash", "-c", f"cd {cwd}\nset -e\n{script}"]
        done = subprocess.run(
            [*inside, "/usr/bin/env", "-i", *(f"{k}={v}" for k, v in environ.items()), *shell],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, (
            f"status {done.returncode} of\n{script}\n{done.stdout}\n{self.journal()}"
        )
        return done.stdout.strip()

    def journal(self, unit: str = "qmodd*") -> str:
        return self.run(f"journalctl --no-pager -q -o cat -u '{unit}' -n 60", check=False)

    def path(self, inside: str) -> Path:
        return self.root / inside.lstrip("/")

    def until(self, what: str, there: Callable[[], bool], within_s: float = 30.0) -> None:
        """Raises AssertionError with the journal."""
        end = time.monotonic() + within_s
        while not there():
            assert time.monotonic() < end, f"not within {within_s:g} s: {what}\n{self.journal()}"
            time.sleep(0.1)


@contextmanager
def booted(root: Path) -> Iterator[Container]:
    """With no network but its own loopback; down and its processes gone at the end."""
    run = ["systemd-nspawn", "--quiet", f"--directory={root}", "--register=no", "--keep-unit", "--private-network"]
    process = subprocess.Popen(
        [*run, "--boot", "--console=pipe"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": PATH},
    )
    try:
        leader = _leader(process)
        container = Container(root, leader)
        container.until("the system is up", lambda: _up(container), BOOT_S)
        yield container
        os.kill(leader, signal.SIGRTMIN + 4)  # man systemd(1): power off
        process.communicate(timeout=STOP_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def _up(container: Container) -> bool:
    return container.run("systemctl is-system-running", check=False) in ("running", "degraded")


def _leader(process: subprocess.Popen[str]) -> int:
    """Host's number of the container's process 1."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end = time.monotonic() + BOOT_S
    while time.monotonic() < end and process.poll() is None:
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
        time.sleep(0.05)
    if process.poll() is None:
        process.kill()
    raise AssertionError(f"the container did not boot: {process.communicate()[1]}")
