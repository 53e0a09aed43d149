"""The example configurations as they are on an installed controller: same keys, other places."""

from __future__ import annotations

import re
from collections.abc import Mapping

HEADER = """\
# This controller's module. Make it the one that runs: ln -s {name} /etc/qmodd/module.toml
# Upgrades leave this file as you have it. `credential:NAME` is unsealed by the service's manager for core alone.
# `qmodd core --check --config /etc/qmodd/module.toml` validates without touching a bus.
"""
BOTH = {
    "state_dir": '"/var/lib/qmodd"',
    "pre_shared_key": '"/var/lib/qmodd/secrets/pre-shared.key"',
    "key_encryption_key": '"credential:kek"',
    "broker": '"mqtts://broker.example:8883"',
    "ca": '"tls/ca.pem"',
    "certificate": '"tls/tls.pem"',
    "key": '"tls/tls.key"',
    "door": '"/run/qmodd/door.sock"',
    "door_shared": "true",
    "identity": '"credential:module-key"',
    "authority": '"authority.pub"',
    "realtime_priority": "10",
}
PLACES: Mapping[str, Mapping[str, str]] = {
    "alice": {**BOTH, "relay_listen": '"0.0.0.0:7700"', "public": '"kms-a.pub"'},
    "bob": {**BOTH, "relay_connect": '"alice.example:7700"', "public": '"kms-b.pub"'},
}


def production(role: str, text: str) -> str:
    """`text` is that of configs/alice.toml or bob.toml.

    Raises ValueError for a key that is not there exactly once: a place that silently stays would be found in service.
    """
    for key, value in PLACES[role].items():
        text, n = re.subn(rf'^(?:# )?{key} = (?:"[^"]*"|[^\s#]+)( *#.*)?$', rf"{key} = {value}\1", text, flags=re.M)
        if n != 1:
            raise ValueError(f"{role}.toml: {key!r} is there {n} times; it must be there once")
    first_table = text.index("\n[") + 1
    return HEADER.format(name=f"{role}.toml") + "\n" + text[first_table:]
