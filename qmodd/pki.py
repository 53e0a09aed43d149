"""`qmodd pki`: certificates of a site for the lab, and the broker's access rules for any site.

A test authority, a certificate each for broker, modules, recipients and clients, and for the clients the signing key
and role certificate without which a module does nothing that they ask. What exists is kept: run it again after a name
was added. Production has its own authority and uses `--acl-only`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from qmodd.broker_site import LAB, Site, SiteError, access_rules, load_site
from qmodd.clock import SystemClock
from qmodd.crypto.certificates import BadCertificate, Issuer
from qmodd.crypto.suites import BadKeyFile, SigningKey
from qmodd.durable import write_all, write_whole
from qmodd.identity import ClientFiles, Signer, issue_certificate
from qmodd.messages import CertificateBody, Role

CA_LIFETIME = timedelta(days=3650)
# Clocks differ.
BACKDATED = timedelta(days=1)
WARN = timedelta(days=30)
CERTIFICATE_FILE, KEY_FILE = "tls.pem", "tls.key"
AUTHORITY_FILES = ("authority.key", "authority.pub")
T = TypeVar("T")


@dataclass
class Pki:
    """One run. `made` and `kept` list the files, `until` when the certificates end, by name."""

    site: Site
    out: Path
    now: datetime
    lifetime: timedelta
    made: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    until: dict[str, datetime] = field(default_factory=dict)

    def run(self, authority: Path | None) -> None:
        """Raises BadCertificate, BadKeyFile, OSError; what was made before stays."""
        issuer = self._issuer()
        people = self._authority(authority)
        hosts = self.site.broker
        self._pair(issuer, "broker", hosts[0], lambda: issuer.server(hosts[0], hosts, *self._times()))
        for serial in self.site.modules:
            self._client(issuer, f"modules/{serial}", serial, "module")
        for name in self.site.recipients:
            self._client(issuer, f"recipients/{name}", name, "recipient")
        for name in self.site.bridges:
            self._client(issuer, f"bridges/{name}", name, "bridge")
        for name, role in self.site.clients.items():
            self._client(issuer, f"clients/{name}", name, role)
            self._signing(people, name, role)
        self.rules()

    def rules(self) -> None:
        """The broker's `acl`, written anew: it follows from the list and holds no secret."""
        self.out.mkdir(parents=True, exist_ok=True)
        write_whole(self.out / "acl", access_rules(self.site), 0o644)
        self.made.append(self.out / "acl")

    def _times(self) -> tuple[datetime, datetime]:
        return self.now - BACKDATED, self.now + self.lifetime

    def _issuer(self) -> Issuer:
        certificate, key = self.out / "ca" / "ca.pem", self.out / "ca" / "ca.key"
        if certificate.exists() and key.exists():
            self.kept += [certificate, key]
            return _naming(certificate, lambda: Issuer.from_pem(certificate.read_bytes(), key.read_bytes()))
        if (self.out / "broker" / CERTIFICATE_FILE).exists():
            raise BadCertificate(f"{key}: is missing; a new authority would not be believed by who has a certificate")
        new = Issuer.new("qmodd test authority", self.now - BACKDATED, self.now + CA_LIFETIME)
        public, private = new.to_pem()
        self._write(key, private, 0o600)
        self._write(certificate, public, 0o644)
        return new

    def _authority(self, path: Path | None) -> Signer:
        """Who gives clients their roles: the one that `qmodd provision` made, if named, else one of this directory."""
        own, public = (self.out / n for n in AUTHORITY_FILES)
        if path is not None or own.exists():
            self.kept.append(path or own)
            return Signer.load(path or own)
        authority = Signer("site-authority", SigningKey.generate())
        self.made += [authority.save(own), authority.save_public(public)]
        return authority

    def _client(self, issuer: Issuer, directory: str, name: str, unit: str) -> None:
        self._pair(issuer, directory, name, lambda: issuer.client(name, unit, *self._times()))

    def _pair(self, issuer: Issuer, directory: str, name: str, make: Callable[[], tuple[bytes, bytes]]) -> None:
        certificate, key = (self.out / directory / n for n in (CERTIFICATE_FILE, KEY_FILE))
        if certificate.exists() and key.exists():
            self.kept += [certificate, key]
            self.until[name] = _naming(certificate, lambda: issuer.check(certificate.read_bytes(), name))
            return
        if certificate.exists() or key.exists():
            there = certificate if certificate.exists() else key
            raise BadCertificate(f"{there}: its other half is missing; remove it to have both made anew")
        public, private = make()
        self._write(key, private, 0o600)
        self._write(certificate, public, 0o644)
        self.until[name] = self._times()[1]

    def _signing(self, authority: Signer, name: str, role: Role) -> None:
        directory = self.out / "clients" / name
        if (directory / "client.key").exists():
            known = ClientFiles.load(directory)
            self.kept += [directory / n for n in ("client.key", "client.cert")]
            given = CertificateBody.model_validate_json(known.certificate.body).role
            if given != role:
                file = directory / "client.cert"
                raise BadKeyFile(f"{file}: gives the role {given}, the list says {role}; remove it and client.key")
            return
        signer = Signer(name, SigningKey.generate())
        certificate = issue_certificate(authority, name, signer.key.public, role, *self._times())
        ClientFiles(signer, certificate).save(directory)
        self.made += [directory / n for n in ("client.key", "client.cert")]

    def _write(self, path: Path, data: bytes, mode: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            write_all(file, data)
            os.fsync(file)
        finally:
            os.close(file)
        self.made.append(path)


def _naming(path: Path, work: Callable[[], T]) -> T:
    """The fault of a file with its name in front."""
    try:
        return work()
    except BadCertificate as e:
        raise BadCertificate(f"{path}: {e}") from None


def add_parser(subparsers: Any) -> None:
    p = subparsers.add_parser(
        "pki",
        help="certificates of a site for the lab, and the broker's access rules",
        description="Makes a test authority, certificates for broker, modules, recipients and clients, clients' "
        "signing keys with their roles, and Mosquitto's acl. What exists is kept; the acl is written anew.",
        epilog="example: qmodd pki --out pki --site site.toml --authority secrets/site/authority.key",
    )
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory to write to")
    p.add_argument("--site", type=Path, metavar="FILE", help="TOML: who is there (default: the demo's pair)")
    p.add_argument(
        "--authority", type=Path, metavar="FILE", help="who signs roles: site/authority.key of `qmodd provision`"
    )
    p.add_argument("--days", type=_days, default=365, metavar="N", help="how long certificates hold (default 365)")
    p.add_argument("--acl-only", action="store_true", help="only the acl, for a site with an authority of its own")
    p.set_defaults(run=command)


def _days(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 3650:
        raise argparse.ArgumentTypeError(f"{text} days; 1 to 3650")
    return value


def command(args: argparse.Namespace) -> int:
    """Exit status: 0 done, 2 a file that is there or the list is not in order."""
    try:
        site = LAB if args.site is None else load_site(args.site)
        run = Pki(site, args.out, SystemClock().utc(), timedelta(days=args.days))
        if args.acl_only:
            run.rules()
        else:
            run.run(args.authority)
    except (SiteError, BadCertificate, BadKeyFile, OSError) as e:
        sys.stderr.write(f"qmodd pki: {e}\n")
        return 2
    for name, until in run.until.items():
        if until < run.now + WARN:
            sys.stderr.write(f"qmodd pki: the certificate of {name} ends on {until:%Y-%m-%d}; remove it to renew it\n")
    sys.stderr.write("".join(f"{path}\n" for path in run.made))
    return 0
