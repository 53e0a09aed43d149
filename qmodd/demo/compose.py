"""Turns the shipped configurations into those of one run of the demo: only addresses and file names differ."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from qmodd.provision import provision
from qmodd.randomness import Randomness

PRE_SHARED_BYTES = 262_144
SERIALS = {"alice": "QM-A-0001", "bob": "QM-B-0001"}


def shipped(name: str) -> str:
    """Text of a file of configs/, from the source tree or from the installed package.

    Raises FileNotFoundError if it is in neither.
    """
    beside = Path(__file__).resolve().parents[2] / "configs" / name
    if beside.is_file():
        return beside.read_text()
    return (resources.files("qmodd") / "data" / "configs" / name).read_text()


def replace_value(text: str, key: str, value: str, *, within: str | None = None) -> str:
    """Set `key = "..."` to another string, in the device stanza named `within` if given.

    Raises ValueError if it is not there exactly once: a silently unchanged configuration would run on wrong hardware.
    """
    start, stop = 0, len(text)
    if within is not None:
        found = re.search(rf'^name = "{re.escape(within)}"$', text, re.M)
        if found is None:
            raise ValueError(f"no device {within!r} in the configuration")
        start = found.end()
        following = re.search(r"^\[", text[start:], re.M)
        stop = start + following.start() if following else len(text)
    part, n = re.subn(rf"^({re.escape(key)} = ).*$", lambda m: m[1] + json.dumps(value), text[start:stop], flags=re.M)
    if n != 1:
        raise ValueError(f"{key!r} is {n} times in {within or 'the configuration'}; it must be there once")
    return text[:start] + part + text[stop:]


@dataclass(frozen=True)
class Places:
    """Where the pieces of one run are."""

    run_dir: Path
    broker_url: str
    relay: str  # host:port


def configuration(role: str, endpoints: dict[str, Any], places: Places, settings: dict[str, str] | None = None) -> str:
    """The text of alice.toml or bob.toml for this run. `settings` are bare `key = value` lines to change (unquoted)."""
    text = shipped(f"{role}.toml")
    mine = endpoints[role]
    text = replace_value(text, "address", "serial:" + mine["serial"]["tec"], within="tec")
    if role == "alice":
        text = replace_value(text, "address", "serial:" + mine["serial"]["laser"], within="laser")
        text = replace_value(text, "address", "visa:" + mine["visa"]["source"], within="symbol_source")
        text = replace_value(text, "relay_listen", places.relay)
    else:
        text = replace_value(text, "address", "visa:" + mine["visa"]["tagger"], within="time_tagger")
        text = replace_value(text, "address", "tcp:" + mine["tcp"]["snspd"], within="detectors")
        text = replace_value(text, "address", "visa:" + mine["visa"]["counter"], within="counter")
        text = replace_value(text, "address", "visa:" + mine["visa"]["cryostat"], within="cryostat")
        text = text.replace("tcp:192.168.10.3:12345", "tcp:" + mine["tcp"]["snspd_counts"])
        text = replace_value(text, "relay_connect", places.relay)
    text = replace_value(text, "factory", str(endpoints["factory"][role]))
    text = replace_value(text, "broker", places.broker_url)
    for key, value in (settings or {}).items():
        text, n = re.subn(rf"^{re.escape(key)} = [^\s#]+", f"{key} = {value}", text, flags=re.M)
        if n != 1:
            raise ValueError(f"{key!r} is {n} times in {role}.toml; it must be there once")
    return text


def provision_site(run_dir: Path, now: datetime, randomness: Randomness) -> None:
    """What `qmodd provision` makes, with each module's part where its configuration looks for it."""
    provision(run_dir, SERIALS["alice"], SERIALS["bob"], "demo-link", PRE_SHARED_BYTES, randomness, now)
    for name, serial in SERIALS.items():
        (run_dir / name).mkdir(exist_ok=True)
        (run_dir / serial).rename(run_dir / name / "secrets")
