"""endpoints.json: where a running world serves what, for daemons and supervisors to read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = "endpoints.json"
HOST = "127.0.0.1"
BAUDS = {"tec": 57600, "laser": 9600}
"""Serial instruments by name and their line speeds (MeCom; OIF ITLA)."""


@dataclass
class ModuleEndpoints:
    """One module's: path of the bus socket, ptys by name, VISA resources by name, host:port by name."""

    bus: str
    serial: dict[str, str] = field(default_factory=dict)
    visa: dict[str, str] = field(default_factory=dict)
    tcp: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"bus": self.bus, "serial": self.serial, "visa": self.visa}
        return found | ({"tcp": self.tcp} if self.tcp else {})


def bus_path(run_dir: Path, module: str) -> Path:
    return run_dir / f"{module}.bus"


def serial_path(run_dir: Path, module: str, name: str) -> Path:
    return run_dir / f"{module}-{name}"


def factory_path(run_dir: Path, module: str) -> Path:
    return run_dir / f"{module}-factory.json"


def hislip_resource(port: int) -> str:
    return f"TCPIP::{HOST}::hislip0,{port}::INSTR"


def raw_resource(port: int) -> str:
    return f"TCPIP::{HOST}::{port}::SOCKET"


def _port_of(resource: str) -> int:
    """Raises ValueError, IndexError for what is no resource of ours."""
    third = resource.split("::")[2]
    return int(third.rpartition(",")[2])


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file so that a reader sees the old or the new one whole. Raises OSError."""
    fresh = path.with_name(path.name + ".new")
    with open(fresh, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def previous_ports(run_dir: Path) -> dict[tuple[str, str], int]:
    """Ports of the world that served this run_dir before, by (module, name); {} without one."""
    try:
        old = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
        ports = {}
        for module, entry in old.items():
            for name, resource in entry.get("visa", {}).items():
                ports[module, name] = _port_of(resource)
            for name, address in entry.get("tcp", {}).items():
                ports[module, name] = int(address.rpartition(":")[2])
    except (OSError, ValueError, AttributeError, IndexError):
        return {}  # none yet, or torn: new ports are as good
    return ports
