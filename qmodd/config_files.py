"""The files that a configuration names: where they are, whose process opens them, and whether they are there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qmodd.secret_files import credential, is_credential

if TYPE_CHECKING:
    from qmodd.config import Config, UplinkSection

Part = Literal["both", "core", "uplink", "none"]
# Whose process opens the file: uplink's user neither needs nor sees what is core's. `state_dir` and `door` are made.
_UPLINK_FILES = (("uplink", "ca"), ("uplink", "certificate"), ("uplink", "key"))
PATHS = (
    ("module", "state_dir"),
    ("module", "factory"),
    ("pair", "pre_shared_key"),
    ("pair", "key_encryption_key"),
    ("selftest", "golden"),
    ("uplink", "identity"),
    ("uplink", "authority"),
    ("uplink", "ca"),
    ("uplink", "certificate"),
    ("uplink", "key"),
    ("uplink", "door"),
)
MINIMUM_PRE_SHARED_BYTES = 65_536


def left_unresolved(config: Config) -> list[str]:
    """Credentials that only the service itself is given, as `field = 'credential:NAME'`."""
    found = [(f"{section}.{name}", getattr(getattr(config, section), name)) for section, name in PATHS]
    found += [(f"recipient.{r.name}.public", r.public) for r in config.recipient]
    return [f"{where} = {str(p)!r}" for where, p in found if p is not None and is_credential(str(p))]


def named_files(raw: dict[str, Any], part: Part) -> Iterator[tuple[dict[str, Any], str, str, bool]]:
    """Each value that names a file: its table, its key, where that is, and whether the part opens it."""
    for section, name in PATHS:
        table = raw.get(section, {})
        owner = "uplink" if (section, name) in _UPLINK_FILES else "core"
        if isinstance(table, dict) and isinstance(table.get(name), str):
            yield table, name, f"{section}.{name}", part in ("both", owner)
    for recipient in raw.get("recipient", []):
        if isinstance(recipient, dict) and isinstance(recipient.get("public"), str):
            yield recipient, "public", f"recipient.{recipient.get('name')}.public", part in ("both", "core")


def located(text: str, base: Path) -> str:
    """Raises NoCredential."""
    return str(credential(text, os.environ) if is_credential(text) else base / text)


def missing_files(config: Config, path: Path, part: Part) -> list[str]:
    """A line a file that the part needs and that is not there, or is not what it has to be."""
    faults = _core_faults(config, path) if part in ("both", "core") else []
    if part in ("both", "uplink"):
        faults += _tls_faults(config.uplink, path)
    return faults


# What a module that was zeroised has not; it starts without, dark.
ZEROISED = ("pair.pre_shared_key", "pair.key_encryption_key", "uplink.identity")


def _core_faults(config: Config, path: Path) -> list[str]:
    state_dir = config.module.state_dir
    dispensable: tuple[str, ...] = ZEROISED if (state_dir / "zeroise.json").exists() else ()
    # The pool is begun: what it was begun from should not lie about any more.
    if (state_dir / "pool.ring").exists():
        dispensable += ("pair.pre_shared_key",)
    wanted = [
        ("module.factory", config.module.factory, "the module's factory record"),
        ("pair.pre_shared_key", config.pair.pre_shared_key, "make one with `qmodd provision`"),
        ("pair.key_encryption_key", config.pair.key_encryption_key, "make one with `qmodd provision`"),
        ("uplink.identity", config.uplink.identity, "make one with `qmodd provision`"),
        ("uplink.authority", config.uplink.authority, "the site authority's public key"),
        *((f"recipient.{r.name}.public", r.public, "the recipient's public key") for r in config.recipient),
    ]
    faults = []
    for field, file, hint in wanted:
        try:
            missing = not is_credential(str(file)) and not file.exists()
        except OSError as e:
            faults.append(f"{path}: {field} = {str(file)!r}: cannot be looked at by this user: {e.strerror}")
            continue
        if missing and field not in dispensable:
            faults.append(f"{path}: {field} = {str(file)!r}: no such file ({hint})")
        elif missing:
            continue
        elif field == "pair.pre_shared_key" and not is_credential(str(file)):
            faults += _too_short(file, path)
    return faults


def _too_short(psk: Path, path: Path) -> list[str]:
    size = psk.stat().st_size
    if size >= MINIMUM_PRE_SHARED_BYTES:
        return []
    needed = f"at least {MINIMUM_PRE_SHARED_BYTES} bytes are needed"
    return [f"{path}: pair.pre_shared_key = {str(psk)!r}: {size} bytes; {needed}"]


def _tls_faults(uplink: UplinkSection, path: Path) -> list[str]:
    """Of the files for the connection to the broker, as far as this user may look at them: they are uplink's."""
    faults = []
    for name in ("ca", "certificate", "key"):
        file: Path | None = getattr(uplink, name)
        if file is None or is_credential(str(file)):
            continue
        where = f"{path}: uplink.{name} = {str(file)!r}"
        try:
            mode = file.stat().st_mode
        except PermissionError:
            continue
        except OSError:
            faults.append(f"{where}: no such file (`qmodd pki` makes some for the lab)")
            continue
        if name == "key" and mode & 0o007:
            faults.append(f"{where}: mode {mode & 0o777:o} lets everybody read it; chmod 600")
    return faults
