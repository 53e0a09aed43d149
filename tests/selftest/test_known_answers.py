"""Known answers: all are given here, each notices its own algorithm gone wrong, definitions agree with constants."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qmodd.crypto import mac, suites
from qmodd.keys.amplification import seed_bytes
from qmodd.selftest import known_answers as known
from qmodd.selftest.bench import Bench
from qmodd.soak import Run
from tests.selftest.bench import on_bench


@pytest.mark.parametrize(("name", "answer", "what"), known.ANSWERS)
def test_every_answer_is_given(name: str, answer: Callable[[], bool], what: str) -> None:
    assert answer(), what


def test_toeplitz_by_its_definition() -> None:
    n, m, x = known.BLOCK_BITS, known.OUT_BITS, known.block()
    seed = hashlib.shake_256(b"qmodd toeplitz seed").digest(seed_bytes(n, m))
    s = np.unpackbits(np.frombuffer(seed, np.uint8), count=n + m - 1)
    out = [int((s[i + n - 1 - np.arange(n)] & x).sum()) & 1 for i in range(m)]
    assert hashlib.sha256(np.packbits(out).tobytes()).digest() == known.TOEPLITZ_SHA256


def test_polynomial_by_its_definition() -> None:
    """Sum of coefficient times power, by integers as they are."""
    prime = (1 << 127) - 1
    point = int.from_bytes(hashlib.shake_256(b"qmodd verification key").digest(16), "little") & prime
    data = np.packbits(known.block()).tobytes()
    pieces = [int.from_bytes(data[i : i + 15], "little") for i in range(0, len(data), 15)]
    coefficients = [known.BLOCK_BITS + 1, *pieces]
    degree = len(coefficients)
    value = sum(c * pow(point, degree - i, prime) for i, c in enumerate(coefficients)) % prime
    assert value.to_bytes(16, "little") == known.POLYNOMIAL_TAG


def flipped(made: bytes) -> bytes:
    return bytes([made[0] ^ 1]) + made[1:]


BROKEN: list[tuple[str, Any, str, Callable[..., Any]]] = [
    ("sha256", mac, "digest", lambda data: hashlib.sha512(data).digest()[:32]),
    ("hmac_sha256", mac, "keyed_hash", lambda key, *parts, length=16: flipped(hashlib.sha256(key).digest())[:length]),
    ("hkdf_sha256", mac, "derive", lambda *_: bytes(42)),
    ("poly1305", mac, "one_time_tag_ok", lambda *_: True),
    ("aes_256_gcm", mac, "unseal", lambda *_: bytearray(known.GCM_PLAIN)),
    ("signature", suites.VerifyingKey, "verify", lambda *_: None),
    ("sealing", suites.OpeningKey, "open", lambda *_: known.HPKE_PLAIN),
    ("toeplitz", known, "amplify", lambda bits, _seed, m, **_by: bits[:m]),
    ("polynomial", known, "verification_tag", lambda *_: known.POLYNOMIAL_TAG),
]


@pytest.mark.parametrize(("name", "where", "what", "instead"), BROKEN)
def test_what_has_gone_wrong_is_seen(
    name: str, where: Any, what: str, instead: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only wrong answers: a check that says yes to everything is none."""
    monkeypatch.setattr(where, what, instead)
    answer = {n: a for n, a, _ in known.ANSWERS}[name]
    assert not answer()


def test_a_finding_each_and_an_error_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> bytes:
        raise ValueError("library was replaced")

    async def work(bench: Bench, _run: Run) -> list[tuple[str, bool, str, str]]:
        return [(f.name, f.ok, f.part, f.why) for f in await known.crypto(bench)]

    assert all(ok and part == "crypto" for _, ok, part, _ in on_bench("bob", work))
    monkeypatch.setattr(mac, "digest", gone)
    failed = [(name, why) for name, ok, _, why in on_bench("bob", work) if not ok]
    assert [name for name, _ in failed] == ["crypto.sha256"]
    assert "library was replaced" in failed[0][1]
