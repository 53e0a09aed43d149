"""The field engineer's door, over real Unix sockets: what a client hears, what it may ask, and who is kept out."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qmodd.clock import SystemClock
from qmodd.ctl import Ctl
from qmodd.door_core import AnswerSender
from qmodd.door_frames import BrokerState, Hello, Inbound, pack
from qmodd.identity import Authority, ClientFiles, provision_identities
from qmodd.local_door import MOST_CLIENTS, LocalDoor
from qmodd.local_link import LocalLink, _matches, open_local, socket_of
from qmodd.messages import Alive
from qmodd.outbox import Outbox
from qmodd.provision import SITE
from qmodd.randomness import SystemRandomness
from qmodd.requests import Arguments, Requests
from qmodd.uplink.mqtt_link import BrokerSettings, LinkDown

MODULE, EPOCH = "QM-A-0001", "0123456789abcdef"
ALIVE = Alive(state="online", epoch=EPOCH, version="1", since=datetime(2026, 1, 1, tzinfo=UTC))
STATE = b'{"administrative": {"value": "unlocked", "why": ""}}'


async def nothing(_inbound: Inbound, _answer: AnswerSender) -> None:
    return None


@asynccontextmanager
async def door(
    path: Path, on_request: Callable[[Inbound, AnswerSender], Awaitable[None]] = nothing
) -> AsyncIterator[LocalDoor]:
    outbox = Outbox(None)
    told: list[tuple[str, str]] = []
    found = LocalDoor(path, outbox, SystemClock(), on_request, ALIVE, MODULE, lambda n, w: told.append((n, w)))
    found.told = told  # type: ignore[attr-defined]
    running = asyncio.ensure_future(found.run())
    async with asyncio.timeout(5.0):
        while not await asyncio.to_thread(path.exists):
            await asyncio.sleep(0)
    try:
        yield found
    finally:
        running.cancel()
        await asyncio.wait({running})
        outbox.close()


async def heard(link: LocalLink, *suffixes: str) -> None:
    """Subscribe, and wait until core has taken the connection: `alive` is the first thing that it says."""
    await link.subscribe(*(f"qmodd/v1/{MODULE}/{s}" for s in ("alive", *suffixes)))
    assert (await link.next_message()).topic.endswith("/alive")


async def test_the_present_and_then_what_comes(tmp_path: Path) -> None:
    path = tmp_path / "local.sock"
    async with door(path) as core:
        core.outbox.put("state", STATE, kind="state", retain=True)
        core.outbox.put("event", b'{"event": "old"}', kind="event")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with open_local(path) as link:
            await link.subscribe(*(f"qmodd/v1/+/{t}" for t in ("alive", "state", "event", "telemetry/+")))
            first = {(await link.next_message()).topic for _ in range(2)}
            assert first == {f"qmodd/v1/{MODULE}/alive", f"qmodd/v1/{MODULE}/state"}, "an old event is not told again"
            core.outbox.put("event", b'{"event": "new"}', kind="event")
            core.telemetry("tec", b"{}")
            said = [await link.next_message() for _ in range(2)]
        assert [m.topic.removeprefix(f"qmodd/v1/{MODULE}/") for m in said] == ["event", "telemetry/tec"]


async def test_no_key_passes(tmp_path: Path) -> None:
    path = tmp_path / "local.sock"
    async with door(path) as core, open_local(path) as link:
        await heard(link, "keys/kms-a", "event")
        core.outbox.put("keys/kms-a", b"sealed", kind="key")
        await asyncio.sleep(0)
        core.outbox.put("event", b"{}", kind="event")
        assert (await link.next_message()).topic.endswith("/event")


async def test_qmodctl_works_on_it_with_signatures_and_roles(tmp_path: Path) -> None:
    """The same request as over MQTT: core verifies it, a client without the role is refused."""
    clock, site = SystemClock(), tmp_path / SITE
    paths = provision_identities(site, clock.utc(), modules=(MODULE,), recipients=("kms-a",))
    done: list[str] = []

    async def safe(_arguments: Arguments) -> dict[str, object]:
        done.append("safe")
        return {"activity": "safe"}

    requests = Requests(
        MODULE,
        EPOCH,
        clock,
        Authority.load(paths["authority.public"]),
        {"safe": safe, "rollback": safe},
        lambda *_: None,
    )
    path = tmp_path / "local.sock"
    async with door(path, requests.handle) as core:
        core.outbox.put("state", STATE, kind="state", retain=True)
        ctl = Ctl(BrokerSettings(url="mqtt://127.0.0.1:1"), 5.0, clock, SystemRandomness(), local=path)
        (status,) = await ctl.status(None)
        assert (status["module"], status["alive"], status["administrative"]) == (MODULE, "online", "unlocked")
        client = ClientFiles.load(site / "operator")
        reply = await ctl.do(client, MODULE, "safe", {})
        assert reply.ok
        assert reply.result == {"activity": "safe"}
        refused = await ctl.do(client, MODULE, "rollback", {})
        assert not refused.ok
        assert done == ["safe"]


async def test_an_answer_goes_to_who_asked_only(tmp_path: Path) -> None:
    async def echo(inbound: Inbound, answer: AnswerSender) -> None:
        answer("operator", inbound.payload)

    path = tmp_path / "local.sock"
    async with door(path, echo) as core, open_local(path) as one, open_local(path) as other:
        for link in (one, other):
            await heard(link, "reply/operator", "event")
        await one.publish(f"qmodd/v1/{MODULE}/command/x", b"ask", correlation=b"c")
        message = await one.next_message()
        assert (message.payload, message.correlation) == (b"ask", b"c")
        core.outbox.put("event", b"{}", kind="event")
        assert (await other.next_message()).topic.endswith("/event")


@pytest.mark.parametrize("frame", [BrokerState(connected=True), Hello(version=99)])
async def test_who_does_not_greet_is_dropped(tmp_path: Path, frame: BrokerState | Hello) -> None:
    path = tmp_path / "local.sock"
    async with door(path) as core:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(pack(frame))
        async with asyncio.timeout(5.0):
            await reader.read()
        writer.close()
        assert [n for n, _ in core.told] == ["local.refused"]  # type: ignore[attr-defined]


async def test_only_so_many_at_once_and_the_rest_go_on(tmp_path: Path) -> None:
    path = tmp_path / "local.sock"
    async with door(path) as core:
        links = [asyncio.open_unix_connection(str(path)) for _ in range(MOST_CLIENTS)]
        open_ones = [await link for link in links]
        for reader, _ in open_ones:
            await reader.readexactly(4)
        reader, writer = await asyncio.open_unix_connection(str(path))
        async with asyncio.timeout(5.0):
            assert await reader.read() == b""
        for _, w in [*open_ones, (reader, writer)]:
            w.close()
        assert "local.refused" in [n for n, _ in core.told]  # type: ignore[attr-defined]


async def test_no_core_is_said(tmp_path: Path) -> None:
    with pytest.raises(LinkDown, match="no core behind the local door"):
        async with open_local(tmp_path):
            pass


def test_the_socket_by_configuration_directory_or_itself(tmp_path: Path) -> None:
    config = tmp_path / "alice.toml"
    config.write_text('[module]\nstate_dir = "state"\n')
    assert socket_of(config) == tmp_path / "state" / "local.sock"
    assert socket_of(tmp_path) == tmp_path / "local.sock"
    assert socket_of(tmp_path / "x.sock") == tmp_path / "x.sock"
    config.write_text("[module]\n")
    with pytest.raises(LinkDown, match="state_dir"):
        socket_of(config)


@pytest.mark.parametrize(
    ("wanted", "topic", "same"),
    [
        ("a/+/c", "a/b/c", True),
        ("a/+", "a/b/c", False),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/b/#", "a/c/d", False),
        ("a/b", "a/b", True),
        ("a/b", "a/B", False),
    ],
)
def test_filters_are_those_of_a_broker(wanted: str, topic: str, same: bool) -> None:
    assert _matches(wanted.split("/"), topic) is same
