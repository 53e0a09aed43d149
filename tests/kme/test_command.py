"""`qmodd kme`: configuration faults by name, status 2; a clean stop by a signal is in test_both_sites."""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

import pytest

from qmodd.kme import command
from qmodd.kme.settings import SettingsError, load_settings
from tests.kme.site import Sites


@pytest.fixture
def sites(tmp_path: Path) -> Sites:
    return Sites(tmp_path)


def run(*arguments: str) -> int:
    top = argparse.ArgumentParser()
    command.add_parser(top.add_subparsers())
    args = top.parse_args(["kme", *arguments])
    status: int = args.run(args)
    return status


def test_a_good_configuration_is_in_order(sites: Sites, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--config", str(sites.config("a")), "--check") == 0
    assert "kme-a.toml: in order" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "more", "why"),
    [
        ({"kme_id": '"KME-B"'}, "", "kme_id and peer_kme_id are both KME-B"),
        ({"listen": '"8443"'}, "", "listen"),
        ({"key_size": "100"}, "", "key_size: Input should be a multiple of 8"),
        ({}, '[[pair]]\nsae_id="X"\npeer_sae_id="Y"\nstore="kms-a"\n', "store kms-a is in two pairs"),
        ({}, '[[pair]]\nsae_id="SAE-A"\npeer_sae_id="SAE-B"\nstore="z"\n', "SAE-A SAE-B is in two pairs"),
        ({}, '[[pair]]\nsae_id="X"\npeer_sae_id="X"\nstore="z"\n', "X cannot be its own peer"),
        ({}, '[[pair]]\nsae_id="a b"\npeer_sae_id="X"\nstore="z"\n', r"pair\.1\.sae_id"),
    ],
)
def test_faults_of_a_configuration_are_named(sites: Sites, changes: dict[str, str], more: str, why: str) -> None:
    path = sites.config("a", **changes)
    path.write_text(path.read_text() + more)
    with pytest.raises(SettingsError, match=why):
        load_settings(path)


@pytest.mark.parametrize(
    ("changes", "more", "why"),
    [
        ({"certificate": '"none.pem"'}, "", "cannot be used for TLS"),
        ({"client_ca": '"SAE-A.key"'}, "", "cannot be used for TLS"),
        ({}, 'store_key = "none"\n', "none: cannot be read"),
        ({}, 'store_key = "credential:x"\n', "CREDENTIALS_DIRECTORY"),
        ({"kme_id": "7"}, "", "kme_id"),
    ],
)
def test_what_it_cannot_start_with_is_said(
    sites: Sites,
    changes: dict[str, str],
    more: str,
    why: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    path = sites.config("a", **changes)
    path.write_text(path.read_text() + more)
    assert run("--config", str(path)) == 2
    assert why in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(sites: Sites, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert run("--config", str(sites.config("a", listen=f'"127.0.0.1:{port}"'))) == 2
    err = capsys.readouterr().err
    assert f"listen = 127.0.0.1:{port}" in err
    assert "Traceback" not in err


def test_without_the_extra_it_says_what_is_missing(
    sites: Sites, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "qmodd.kme.server", raising=False)
    monkeypatch.delattr("qmodd.kme.server", raising=False)
    assert run("--config", str(sites.config("a"))) == 2
    assert "pip install 'qmodd[kme]'" in capsys.readouterr().err
