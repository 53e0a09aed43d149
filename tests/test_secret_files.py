"""Credentials and the modes of secret files."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmodd.secret_files import NoCredential, credential, too_open


def test_a_credential_is_a_file_of_the_service() -> None:
    assert credential("credential:kek", {"CREDENTIALS_DIRECTORY": "/run/credentials/x"}) == Path(
        "/run/credentials/x/kek"
    )


@pytest.mark.parametrize("environ", [{}, {"CREDENTIALS_DIRECTORY": ""}])
def test_where_nobody_gives_any_it_says_who_would(environ: dict[str, str]) -> None:
    with pytest.raises(NoCredential, match=r"\$CREDENTIALS_DIRECTORY is not set: .*LoadCredentialEncrypted=kek:"):
        credential("credential:kek", environ)


@pytest.mark.parametrize("name", ["", "../kek", "a/b", ".hidden", "x" * 65, "kek\n"])
def test_a_name_cannot_lead_out_of_the_directory(name: str) -> None:
    with pytest.raises(NoCredential, match="a credential's name is"):
        credential(f"credential:{name}", {"CREDENTIALS_DIRECTORY": "/run/credentials/x"})


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_its_owners_file_is_in_order(tmp_path: Path, mode: int) -> None:
    (tmp_path / "kek").touch(mode)
    assert too_open(tmp_path / "kek", {}) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o440])
def test_a_file_of_others_is_refused_with_its_mode(tmp_path: Path, mode: int) -> None:
    (tmp_path / "kek").touch()
    (tmp_path / "kek").chmod(mode)
    assert too_open(tmp_path / "kek", {}) == f"mode {mode:04o} lets others read it; allowed is 0600"


def test_an_access_list_shows_as_0440_and_is_in_order_for_a_credential_only(tmp_path: Path) -> None:
    (tmp_path / "kek").touch()
    (tmp_path / "kek").chmod(0o440)
    given = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert too_open(tmp_path / "kek", given) is None
    (tmp_path / "kek").chmod(0o444)
    assert too_open(tmp_path / "kek", given) == "mode 0444 lets others read it; allowed is 0600"
    elsewhere = {"CREDENTIALS_DIRECTORY": str(tmp_path / "other")}
    (tmp_path / "kek").chmod(0o440)
    assert too_open(tmp_path / "kek", elsewhere) is not None
