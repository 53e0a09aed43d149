"""[uplink] ca, certificate, key: relative to the file, together or not at all, and the key for its owner only."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmodd.config import ConfigError, load
from tests.test_config import Folder

PLAIN = 'broker = "mqtt://127.0.0.1:1883"'
TLS = 'broker = "mqtts://broker.example:8883"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    (tmp_path / "alice" / "tls").mkdir()
    for name in ("ca.pem", "tls.pem", "tls.key"):
        (tmp_path / "alice" / "tls" / name).touch(0o600)
    return made


def lines(*names: str) -> str:
    files = {"ca": "tls/ca.pem", "certificate": "tls/tls.pem", "key": "tls/tls.key"}
    return "\n".join(f'{n} = "{files[n]}"' for n in names)


def test_files_are_relative_to_the_configuration(folder: Folder) -> None:
    path = folder.change(PLAIN, TLS + lines("ca", "certificate", "key"))
    uplink = load(path).uplink
    assert (uplink.ca, uplink.certificate, uplink.key) == tuple(
        path.parent / "tls" / n for n in ("ca.pem", "tls.pem", "tls.key")
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (TLS + lines("ca", "certificate"), "key is missing"),
        (TLS + lines("ca", "key"), "certificate is missing"),
        (f"{PLAIN}\n{lines('ca')}", "write mqtts://"),
        (TLS + 'ca = "tls/none.pem"', "uplink.ca"),
    ],
)
def test_what_does_not_go_together_is_refused(folder: Folder, change: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(folder.change(PLAIN, change))


def test_a_key_that_everybody_may_read_is_refused(folder: Folder) -> None:
    path = folder.change(PLAIN, TLS + lines("certificate", "key"))
    (path.parent / "tls" / "tls.key").chmod(0o644)
    with pytest.raises(ConfigError, match=r"uplink\.key.*mode 644 lets everybody read it; chmod 600"):
        load(path)
