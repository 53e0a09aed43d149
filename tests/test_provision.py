"""What a pair shares before its first key: the right files, for the right eyes, written once."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from qmodd.cli import main
from qmodd.clock import SystemClock
from qmodd.identity import Authority, ClientFiles, Recipient, RecipientPublic, Signer
from qmodd.keys.pool import MINIMUM_BYTES
from qmodd.keys.store import KEK_BYTES, load_kek
from qmodd.provision import AUTHORITY_FILE, KEK_FILE, MODULE_KEY_FILE, PRE_SHARED_FILE, SITE, provision
from qmodd.randomness import SeededRandomness

A, B = "QM-A-0007", "QM-B-0007"


def make(directory: Path, seed: int = 1, size: int = MINIMUM_BYTES) -> list[Path]:
    return provision(directory, A, B, "lab-1", size, SeededRandomness(seed), SystemClock().utc())


def test_both_modules_share_the_pool_and_nothing_else(tmp_path: Path) -> None:
    files = make(tmp_path)
    assert all(f.exists() for f in files)
    pools = [(tmp_path / m / PRE_SHARED_FILE).read_bytes() for m in (A, B)]
    assert pools[0] == pools[1]
    assert len(pools[0]) == MINIMUM_BYTES
    keks = [bytes(load_kek(tmp_path / m / KEK_FILE)) for m in (A, B)]
    assert keks[0] != keks[1]
    assert all(len(k) == KEK_BYTES and k not in pools[0] for k in keks)
    signers = [Signer.load(tmp_path / m / MODULE_KEY_FILE) for m in (A, B)]
    assert [s.name for s in signers] == [A, B]
    assert signers[0].key.public.kid != signers[1].key.public.kid


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    make(tmp_path)
    for module in (A, B):
        assert stat.S_IMODE((tmp_path / module).stat().st_mode) == 0o700
    secret = [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix == ".key"]
    assert len(secret) >= 8
    for path in secret:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_no_module_holds_a_private_key_of_another(tmp_path: Path) -> None:
    make(tmp_path)
    for module in (A, B):
        private = {p.name for p in (tmp_path / module).iterdir() if p.suffix == ".key"}
        assert private == {PRE_SHARED_FILE, KEK_FILE, MODULE_KEY_FILE}


def test_identities_fit_together(tmp_path: Path) -> None:
    make(tmp_path)
    for module, kms in ((A, "kms-a"), (B, "kms-b")):
        authority = Authority.load(tmp_path / module / AUTHORITY_FILE)
        operator = ClientFiles.load(tmp_path / SITE / "operator")
        assert authority.check_certificate(operator.certificate, SystemClock().utc())[0].role == "operator"
        public = RecipientPublic.load(tmp_path / module / f"{kms}.pub")
        assert Recipient.load(tmp_path / SITE / f"{kms}.key").name == public.name == kms


def test_what_exists_is_never_overwritten(tmp_path: Path) -> None:
    make(tmp_path)
    before = (tmp_path / A / PRE_SHARED_FILE).read_bytes()
    with pytest.raises(FileExistsError):
        make(tmp_path, seed=2)
    assert (tmp_path / A / PRE_SHARED_FILE).read_bytes() == before


def test_randomness_is_the_one_that_was_given(tmp_path: Path) -> None:
    for number, seed in enumerate((1, 1, 2)):
        make(tmp_path / str(number), seed)
    pools = [(tmp_path / str(n) / A / PRE_SHARED_FILE).read_bytes() for n in range(3)]
    assert pools[0] == pools[1] != pools[2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--bytes", "1000"], f"pool of 1000 bytes; at least {MINIMUM_BYTES}"),
        (["--bob", A], f"both modules have the serial number {A!r}"),
    ],
)
def test_wrong_sizes_and_names_are_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: list[str], said: str
) -> None:
    argv = ["provision", "--out", str(tmp_path / "x"), "--alice", A, "--bob", B, "--link", "lab-1", *changes]
    assert main(argv) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_command_lists_what_it_wrote_and_never_a_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["provision", "--out", str(tmp_path / "x"), "--alice", A, "--bob", B, "--link", "lab-1"]
    assert main(argv) == 0
    said = capsys.readouterr()
    assert said.out == ""
    listed = {Path(line) for line in said.err.splitlines()}
    assert {tmp_path / "x" / m / PRE_SHARED_FILE for m in (A, B)} <= listed
    assert all(path.exists() for path in listed)
    assert (tmp_path / "x" / A / PRE_SHARED_FILE).stat().st_size == 1 << 20
    assert main(argv) == 2
    assert "File exists" in capsys.readouterr().err
