"""Two sites whose receivers hold the same keys, and a KME on each."""

from __future__ import annotations

from pathlib import Path

from qmodd.receive import Receiver
from tests.kme.certificates import TestAuthority
from tests.receiver.build import ALICE, OTHER, batch, notice, receiver_in
from tests.uplink_fakes import HandClock

SITES = {"a": ("b", ALICE), "b": ("a", OTHER)}


class Sites:
    """Files of both sites below a directory; `fill` gives both receivers the same keys."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = TestAuthority(directory)
        for name in ("localhost", "SAE-A", "SAE-B", "SAE-X"):
            self.authority.issue(name)
        # Real time passes in the KMEs, which are not asked to judge lifetimes unless this host is synchronised.
        self.clock = HandClock(synchronised=False)

    def store(self, site: str) -> Path:
        return self.directory / f"kms-{site}"

    def receiver(self, site: str) -> Receiver:
        return receiver_in(self.store(site), self.clock)

    def fill(self, numbers: range, *, pending_at: str = "") -> None:
        for site, (_, module) in SITES.items():
            receiver = self.receiver(site)
            seq = receiver.table.totals()["imported"] + 1
            receiver.process(batch(seq, *numbers, sender=module, not_after=2**40, purge_by=2**40))
            if site != pending_at:
                receiver.notice(notice("usable", numbers, sender=module))
            receiver.close()

    def config(self, site: str, **changes: str) -> Path:
        peer = SITES[site][0]
        lines = {
            "kme_id": f'"KME-{site.upper()}"',
            "peer_kme_id": f'"KME-{peer.upper()}"',
            "listen": '"127.0.0.1:0"',
            "certificate": '"localhost.pem"',
            "key": '"localhost.key"',
            "client_ca": '"ca.pem"',
            "max_keys_per_request": "8",
            **changes,
        }
        text = "".join(f"{k} = {v}\n" for k, v in lines.items())
        text += f'[[pair]]\nsae_id = "SAE-{site.upper()}"\npeer_sae_id = "SAE-{peer.upper()}"\nstore = "kms-{site}"\n'
        path = self.directory / f"kme-{site}.toml"
        path.write_text(text)
        return path
