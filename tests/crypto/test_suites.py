"""Dual signatures, HPKE sealing and key files."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.crypto import suites
from qmodd.crypto.suites import BadKeyFile, BadSignature, CannotOpen, OpeningKey, SealingKey, SigningKey, VerifyingKey

KEY = SigningKey.generate()
OTHER = SigningKey.generate()
OPENING = OpeningKey.generate()


def test_a_signature_verifies_with_the_public_half_and_has_the_documented_size() -> None:
    signature = KEY.sign(b"message", b"ctx")
    assert len(signature) == suites.SIGNATURE_BYTES == 3373
    VerifyingKey.from_bytes(KEY.public.to_bytes()).verify(b"message", signature, b"ctx")


def test_each_half_alone_is_not_enough() -> None:
    mine, theirs = KEY.sign(b"m", b"c"), OTHER.sign(b"m", b"c")
    with pytest.raises(BadSignature, match="ML-DSA"):
        KEY.public.verify(b"m", mine[:64] + theirs[64:], b"c")
    with pytest.raises(BadSignature, match="Ed25519"):
        KEY.public.verify(b"m", theirs[:64] + mine[64:], b"c")


def test_another_context_does_not_verify() -> None:
    with pytest.raises(BadSignature, match="ML-DSA"):
        KEY.public.verify(b"m", KEY.sign(b"m", b"c"), b"d")


@settings(max_examples=30, deadline=None)
@given(at=st.integers(0, suites.SIGNATURE_BYTES - 1), bit=st.integers(0, 7))
def test_no_bit_of_a_signature_may_change(at: int, bit: int) -> None:
    signature = bytearray(KEY.sign(b"m", b"c"))
    signature[at] ^= 1 << bit
    with pytest.raises(BadSignature):
        KEY.public.verify(b"m", bytes(signature), b"c")


def test_a_signature_of_another_length_is_refused() -> None:
    with pytest.raises(BadSignature, match="3372 bytes"):
        KEY.public.verify(b"m", KEY.sign(b"m", b"c")[:-1], b"c")


def test_keys_survive_serialisation() -> None:
    again = SigningKey.from_bytes(KEY.to_bytes())
    assert again.public.kid == KEY.public.kid
    KEY.public.verify(b"m", again.sign(b"m", b"c"), b"c")
    opening = OpeningKey.from_bytes(OPENING.to_bytes())
    assert opening.public.to_bytes() == OPENING.public.to_bytes()
    assert opening.open(SealingKey.from_bytes(OPENING.public.to_bytes()).seal(b"k", b"i"), b"i") == b"k"


@pytest.mark.parametrize("kind", [SigningKey, VerifyingKey, SealingKey, OpeningKey])
def test_a_key_of_wrong_length_is_refused(
    kind: type[SigningKey] | type[VerifyingKey] | type[SealingKey] | type[OpeningKey],
) -> None:
    with pytest.raises(ValueError, match="3 bytes where"):
        kind.from_bytes(b"abc")


@settings(max_examples=20, deadline=None)
@given(plain=st.binary(max_size=200), info=st.binary(max_size=50))
def test_sealed_opens_with_the_same_info_only(plain: bytes, info: bytes) -> None:
    sealed = OPENING.public.seal(bytearray(plain), info)
    assert len(sealed) == 1120 + len(plain) + 16
    assert OPENING.open(sealed, info) == plain
    with pytest.raises(CannotOpen):
        OPENING.open(sealed, info + b"x")
    with pytest.raises(CannotOpen):
        OpeningKey.generate().open(sealed, info)
    with pytest.raises(CannotOpen):
        OPENING.open(sealed[:-1], info)


def test_private_keys_do_not_show_in_their_repr() -> None:
    assert repr(KEY) == "SigningKey(...)"
    assert repr(OPENING) == "OpeningKey(...)"


def test_wipe_overwrites_in_place() -> None:
    buffer = bytearray(b"secret")
    suites.wipe(buffer)
    assert buffer == bytes(6)


def test_a_secret_key_file_is_closed_to_others_and_refused_when_opened_up(tmp_path: Path) -> None:
    path = suites.write_key_file(tmp_path / "a" / "k.key", "kind", "n", {"private": b"x" * 5}, secret=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert suites.read_key_file(path, "kind", "private", secret=True) == ("n", [b"x" * 5])
    with pytest.raises(FileExistsError):
        suites.write_key_file(path, "kind", "n", {"private": b"y"}, secret=True)
    os.chmod(path, 0o640)
    with pytest.raises(BadKeyFile, match=r"k\.key: mode 0640"):
        suites.read_key_file(path, "kind", "private", secret=True)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("not json", "not a key file"),
        ('{"kind": "other"}', "not a kind file"),
        ('{"kind": "kind", "name": "n"}', "damaged"),
        ('{"kind": "kind", "name": "n", "public": "*"}', "damaged"),
        ("[]", "not a kind file"),
    ],
)
def test_a_wrong_key_file_is_named(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "k.pub"
    path.write_text(content)
    with pytest.raises(BadKeyFile, match=why):
        suites.read_key_file(path, "kind", "public", secret=False)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadKeyFile, match=r"none\.key: cannot be read"):
        suites.read_key_file(tmp_path / "none.key", "kind", "public", secret=False)
