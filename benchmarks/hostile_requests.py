"""What a hostile client sends: its own requests and others' that it has caught, whole, cut, bent and made up."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from qmodd.clock import SystemClock
from qmodd.identity import ClientFiles, sign_request
from qmodd.messages import ROOT, RequestBody
from qmodd.randomness import SystemRandomness

WRONG: tuple[Any, ...] = (None, True, -1, 1e308, "", "x" * 1000, [], {}, [[[[]]]], {"a": {"b": {}}})


@dataclass(frozen=True)
class Attempt:
    """One message. `refusal` is the code with which core must answer or audit it; empty: any refusal will do."""

    kind: str
    topic: str
    payload: bytes
    retain: bool = False
    refusal: str = ""


@dataclass(frozen=True)
class Attacker:
    """Signs as `client` for one module in its present epoch."""

    client: ClientFiles
    module: str
    epoch: str

    def topic(self, command: str) -> str:
        return f"{ROOT}/{self.module}/{command if command.startswith('set/') else f'command/{command}'}"

    def body(self, command: str, **changes: object) -> RequestBody:
        now = SystemClock().utc()
        fields: dict[str, object] = {
            "module": self.module,
            "topic": self.topic(command),
            "epoch": self.epoch,
            "id": str(SystemRandomness().uuid()),
            "issued_at": now,
            "expires_at": now + timedelta(seconds=60),
            "client": self.client.signer.name,
            "arguments": {},
        }
        return RequestBody.model_validate({**fields, **changes})

    def request(self, command: str, **changes: object) -> bytes:
        return sign_request(self.client.signer, self.client.certificate, self.body(command, **changes)).payload()

    def attempt(self, kind: str, command: str, refusal: str = "", **changes: object) -> Attempt:
        return Attempt(kind, self.topic(command), self.request(command, **changes), refusal=refusal)


def own(viewer: Attacker, commands: list[str]) -> Iterator[Attempt]:
    """Every command under its own name, and as somebody else; `commands` are those that a viewer may not give."""
    now = SystemClock().utc()
    for command in commands:
        yield viewer.attempt("own", command, "not_allowed")
        yield viewer.attempt("as another", command, "wrong_client", client="operator")
        long_ago = {"issued_at": now - timedelta(days=2), "expires_at": now - timedelta(days=2) + timedelta(minutes=1)}
        yield viewer.attempt("expired", command, "", **long_ago)
        yield viewer.attempt("old epoch", command, "wrong_epoch", epoch="0" * 16)
        yield viewer.attempt("long window", command, "bad_window", expires_at=now + timedelta(days=1))
        yield viewer.attempt("other module", command, "wrong_module", module="QM-X-0001")


def caught(operator: Attacker, used: bytes, command: str) -> Iterator[Attempt]:
    """With an operator's requests: one that was carried out before, and fresh ones that never came to the module."""
    topic = operator.topic(command)
    yield Attempt("replayed", topic, used, refusal="duplicate")
    fresh = operator.request(command)
    yield Attempt("retained", topic, fresh, retain=True, refusal="retained")
    yield Attempt("cleared", topic, b"", retain=True, refusal="retained")
    yield Attempt("moved", operator.topic("safe"), fresh, refusal="wrong_topic")
    bent = json.loads(fresh)
    bent["body"] = bent["body"].replace(f'/{command}"', '/safe"')
    yield Attempt("changed", operator.topic("safe"), json.dumps(bent).encode(), refusal="bad_signature")
    for cut in range(0, len(fresh), max(1, len(fresh) // 60)):
        yield Attempt("truncated", topic, fresh[:cut], refusal="malformed")
    for size in (65_537, 300_000, 1_500_000):
        yield Attempt("oversized", topic, fresh + b" " * (size - len(fresh)), refusal="too_large")


def wrong_typed(operator: Attacker, command: str) -> Iterator[Attempt]:
    """Each field of a good request and of its body with values that it cannot have."""
    topic, good = operator.topic(command), json.loads(operator.request(command))
    for name in good:
        for value in WRONG:
            yield Attempt("wrong-typed", topic, json.dumps({**good, name: value}).encode())
    body = json.loads(good["body"])
    for name in body:
        for value in WRONG:
            raw = json.dumps({**good, "body": json.dumps({**body, name: value})})
            yield Attempt("wrong-typed", topic, raw.encode())


def fuzzed(seeds: Sequence[tuple[str, bytes]], count: int, seed: int) -> Iterator[Attempt]:
    """Requests with bits turned, pieces cut out, doubled and swapped, random JSON and random bytes.

    `seeds` are topics with requests that are of no use as they are: a bent one may still say the same (a doubled
    member of the object).
    """
    rng = random.Random(seed)
    bends: tuple[Callable[[random.Random, bytearray], bytes], ...] = (_turn, _cut, _double, _swap, _json, _noise)
    for number in range(count):
        topic, good = seeds[number % len(seeds)]
        bent = bends[number % len(bends)](rng, bytearray(good))
        if bent != good:
            yield Attempt("fuzzed", topic, bent)


def _turn(rng: random.Random, data: bytearray) -> bytes:
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _cut(rng: random.Random, data: bytearray) -> bytes:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 400)]
    return bytes(data)


def _double(rng: random.Random, data: bytearray) -> bytes:
    at = rng.randrange(len(data))
    return bytes(data[:at] + data[at : at + rng.randint(1, 400)] + data[at:])


def _swap(rng: random.Random, data: bytearray) -> bytes:
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    return bytes(data[b:] + data[a:b] + data[:a])


def _json(rng: random.Random, _data: bytearray) -> bytes:
    def value(depth: int) -> Any:
        kind = rng.randrange(7 if depth < 4 else 5)
        if kind == 5:
            return [value(depth + 1) for _ in range(rng.randrange(4))]
        if kind == 6:
            return {rng.choice(("body", "certificate", "signature", "x")): value(depth + 1) for _ in range(3)}
        return (None, rng.random() < 0.5, rng.randint(-(1 << 70), 1 << 70), rng.random(), "\u0000é" * 5)[kind]

    return json.dumps(value(0)).encode()


def _noise(rng: random.Random, _data: bytearray) -> bytes:
    return rng.randbytes(rng.randrange(3000))
