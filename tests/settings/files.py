"""A configuration without the files that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qmodd.config import ROLES_OF, Config


def config(directory: Path, role: str = "alice", **sections: dict[str, Any]) -> Config:
    """Sections as in the file; the rest as the models say."""
    raw: dict[str, Any] = {
        "module": {"serial": "QM-A-1", "role": role, "state_dir": directory, "factory": directory / "factory.json"},
        "pair": {
            "link_id": "link-1",
            "peer_serial": "QM-B-1",
            "pre_shared_key": directory / "psk",
            "key_encryption_key": directory / "kek",
        },
        "device": [
            {"name": r, "role": r, "driver": "none", "address": f"i2c:1:0x{n + 16:02x}"}
            for n, r in enumerate(ROLES_OF[role])
        ],
        "uplink": {
            "identity": directory / "id",
            "authority": directory / "authority",
            "relay_listen": "127.0.0.1:1",
            "relay_connect": "127.0.0.1:1",
        },
    }
    for name, values in sections.items():
        raw[name] = {**raw.get(name, {}), **values}
    return Config.model_validate(raw)
