"""`qmodd provision`: the files that a pair of modules shares before its first key.

Each module gets its own directory, to be brought there by hand, with the pair's pre-shared secret, a key-encryption key
and a signing key of its own, and the public keys that it trusts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from qmodd.clock import SystemClock
from qmodd.identity import provision_identities
from qmodd.keys.pool import MINIMUM_BYTES
from qmodd.keys.store import KEK_BYTES
from qmodd.randomness import Randomness, SystemRandomness

PRE_SHARED_FILE = "pre-shared.key"
KEK_FILE = "kek.key"
MODULE_KEY_FILE = "module.key"
AUTHORITY_FILE = "authority.pub"
SITE = "site"
# A key-management system a site: alice's, bob's.
RECIPIENTS = ("kms-a", "kms-b")


@dataclass(frozen=True)
class Provision:
    """What is being provisioned; `alice` and `bob` are the directories of the two modules."""

    out_dir: Path
    alice_serial: str
    bob_serial: str
    link_id: str
    randomness: Randomness
    now: datetime

    @property
    def alice(self) -> Path:
        return self.out_dir / self.alice_serial

    @property
    def bob(self) -> Path:
        return self.out_dir / self.bob_serial


def identities(what: Provision) -> list[Path]:
    """Module keys, the site authority, one recipient a site, an operator, a maintainer and two clients of
    the role security, for a pair that has none.

    Each module's directory gets its private key, the authority's and its recipient's public keys; all private keys of
    the site stay in `site/`, which production keeps elsewhere or replaces by its own.
    """
    site = what.out_dir / SITE
    serials = (what.alice_serial, what.bob_serial)
    paths = provision_identities(site, what.now, modules=serials, recipients=tuple(RECIPIENTS))
    for serial, directory, recipient in zip(serials, (what.alice, what.bob), RECIPIENTS, strict=True):
        paths[serial] = paths[serial].rename(directory / MODULE_KEY_FILE)
        for name, source in ((AUTHORITY_FILE, "authority.public"), (f"{recipient}.pub", f"{recipient}.public")):
            paths[f"{serial} {name}"] = directory / name
            shutil.copyfile(paths[source], directory / name)
    return list(paths.values())


# What else a pair needs, after the pool and the key-encryption keys. Each step returns the files it wrote.
EXTRA_STEPS: list[Callable[[Provision], list[Path]]] = [identities]


def provision(
    out_dir: Path, alice_serial: str, bob_serial: str, link_id: str, size_bytes: int, rng: Randomness, now: datetime
) -> list[Path]:
    """Write the pair's files, mode 0600, and return them.

    Raises ValueError for a pool that is too small or equal serial numbers, FileExistsError rather than overwrite a
    secret: a pad that is written anew on one side only, or used again, ends the security of the pair.
    """
    if size_bytes < MINIMUM_BYTES:
        raise ValueError(f"pool of {size_bytes} bytes; at least {MINIMUM_BYTES} are needed")
    if alice_serial == bob_serial:
        raise ValueError(f"both modules have the serial number {alice_serial!r}")
    what = Provision(out_dir, alice_serial, bob_serial, link_id, rng, now)
    pads = rng.bytes(size_bytes)
    files = []
    for directory in (what.alice, what.bob):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        files += [_write(directory / PRE_SHARED_FILE, pads), _write(directory / KEK_FILE, rng.bytes(KEK_BYTES))]
    for step in EXTRA_STEPS:
        files += step(what)
    return files


def _write(path: Path, data: bytes) -> Path:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    return path


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The subcommand's arguments."""
    p = commands.add_parser(
        "provision",
        help="make the secret files of a new pair of modules",
        description="Makes pre-shared pool, key-encryption keys and identities of a pair, one directory a module.",
        epilog="example: qmodd provision --out secrets --alice QM-A-0001 --bob QM-B-0001 --link lab-1",
    )
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory to write to")
    p.add_argument("--alice", required=True, metavar="SERIAL", help="serial number of the transmitter")
    p.add_argument("--bob", required=True, metavar="SERIAL", help="serial number of the receiver")
    p.add_argument("--link", required=True, metavar="ID", help="name of the link")
    p.add_argument(
        "--bytes",
        type=int,
        default=1 << 20,
        metavar="N",
        help=f"size of the authentication pool (default %(default)s, at least {MINIMUM_BYTES})",
    )
    p.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 done, 2 wrong usage (something exists already, or a size is too small)."""
    try:
        files = provision(
            arguments.out,
            arguments.alice,
            arguments.bob,
            arguments.link,
            arguments.bytes,
            SystemRandomness(),
            SystemClock().utc(),
        )
    except (ValueError, OSError) as e:
        sys.stderr.write(f"qmodd provision: {e}\n")
        return 2
    sys.stderr.write("".join(f"{f}\n" for f in files))
    return 0
