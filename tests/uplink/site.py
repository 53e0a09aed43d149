"""A site's broker as it is shipped, with certificates of its own: what tests of access, bridge and clients stand on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from qmodd.broker import BrokerHandle, plan_configured, start_planned
from qmodd.broker_site import Site
from qmodd.clock import SystemClock
from qmodd.demo.compose import shipped
from qmodd.pki import Pki
from qmodd.uplink.mqtt_link import BrokerSettings, Link, open_link

FOLDERS = ("modules", "recipients", "clients", "bridges")


@dataclass(frozen=True)
class SecureSite:
    """Certificates in `pki`; `start` runs the shipped configuration of a broker on them."""

    pki: Path
    run_dir: Path

    @classmethod
    def make(cls, directory: Path, site: Site) -> SecureSite:
        Pki(site, directory / "pki", SystemClock().utc(), timedelta(days=2)).run(None)
        return cls(directory / "pki", directory / "broker")

    async def start(self, port: int | None = None, bridge: str = "") -> BrokerHandle:
        extra = self.run_dir / "conf.d"
        extra.mkdir(parents=True, exist_ok=True)
        (extra / "bridge.conf").write_text(bridge)
        values = {
            "cafile": str(self.pki / "ca" / "ca.pem"),
            "certfile": str(self.pki / "broker" / "tls.pem"),
            "keyfile": str(self.pki / "broker" / "tls.key"),
            "acl_file": str(self.pki / "acl"),
            "include_dir": str(extra),
        }
        plan = plan_configured(self.run_dir, shipped("mosquitto/mosquitto.conf"), values, port)
        return await start_planned(plan, self.run_dir)

    def directory(self, name: str) -> Path:
        return next(self.pki / f / name for f in FOLDERS if (self.pki / f / name).is_dir())

    def settings(self, name: str, url: str) -> BrokerSettings:
        own = self.directory(name)
        return BrokerSettings(url=url, ca=self.pki / "ca" / "ca.pem", certificate=own / "tls.pem", key=own / "tls.key")

    def link(self, name: str, url: str, **options: Any) -> AbstractAsyncContextManager[Link]:
        """A connection as that module, recipient, client or bridge."""
        return open_link(self.settings(name, url), f"test-{name}", **options)


def changed(text: str, values: Mapping[str, str]) -> str:
    """A configuration in which each option says something else; each is there once."""
    lines = text.splitlines()
    for option, value in values.items():
        (at,) = [i for i, line in enumerate(lines) if line.startswith(f"{option} ")]
        lines[at] = f"{option} {value}"
    return "\n".join(lines) + "\n"
