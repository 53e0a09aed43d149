from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sim.server.busproto import HANG, Frames, Open, Reply, Request, decode_request, encode_reply
from sim.server.seccomp.client import WorldClient
from tests.sim.server.seccomp.fakes import fails

Script = Callable[[socket.socket, Request], bool]
"""What the world does with a request; False closes the connection."""


@contextmanager
def world(path: Path, *connections: Script) -> Iterator[list[Request]]:
    """A world that takes as many connections as there are scripts, one after another."""
    seen: list[Request] = []

    def run() -> None:
        for script in connections:
            sock, _ = server.accept()
            with sock:
                frames, alive = Frames(), True
                while alive and (data := sock.recv(65536)):
                    for body in frames.feed(data):
                        seen.append(decode_request(body))
                        alive = alive and script(sock, seen[-1])

    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(5.0)
        thread = threading.Thread(target=run)
        thread.start()
        yield seen
        thread.join(5.0)
        assert not thread.is_alive()


def answering(*replies: Reply) -> Script:
    queue = list(replies)

    def script(sock: socket.socket, _: Request) -> bool:
        sock.sendall(encode_reply(queue.pop(0)))
        return bool(queue)

    return script


@pytest.fixture
def client() -> Iterator[Callable[..., WorldClient]]:
    made: list[WorldClient] = []

    def make(path: Path, timeout_s: float = 5.0) -> WorldClient:
        made.append(WorldClient(path, "alice", "/dev/i2c-1", timeout_s))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_replies_and_errors_of_the_world(tmp_path: Path, client: Callable[..., WorldClient]) -> None:
    path = tmp_path / "bus"
    with world(path, answering(Reply(0, b"x"), Reply(-errno.ENXIO))) as seen:
        c = client(path)
        assert c.call(Open()) == Reply(0, b"x")
        with fails(errno.ENXIO):
            c.call(Open())
        c.close()
    assert seen == [Request("alice", "/dev/i2c-1", Open())] * 2


def test_without_a_world_every_call_is_eio_and_it_may_come_back(
    tmp_path: Path, client: Callable[..., WorldClient]
) -> None:
    path = tmp_path / "bus"
    c = client(path)
    with fails(errno.EIO):
        c.call(Open())
    with world(path, answering(Reply(0), Reply(0)), answering(Reply(1), Reply(2))):
        assert c.call(Open()).status == 0
        assert c.call(Open()).status == 0  # the world hangs up after this one
        assert c.call(Open()).status == 1  # on a new connection, unnoticed
        c.close()
    with fails(errno.EIO):
        c.call(Open())


def test_a_world_that_hangs_up_on_the_request_is_eio(tmp_path: Path, client: Callable[..., WorldClient]) -> None:
    path = tmp_path / "bus"
    with world(path, lambda sock, request: False), fails(errno.EIO):
        client(path).call(Open())
    with world(path, answering(Reply(0), Reply(0)), lambda sock, request: False):
        c = client(path)
        c.call(Open())
        c.call(Open())
        with fails(errno.EIO):
            c.call(Open())


def test_a_late_reply_does_not_answer_the_next_request(tmp_path: Path, client: Callable[..., WorldClient]) -> None:
    path = tmp_path / "bus"
    held = threading.Event()

    def late(sock: socket.socket, _: Request) -> bool:
        held.wait(5.0)
        try:
            sock.sendall(encode_reply(Reply(111)))
        except BrokenPipeError:
            return False
        return False

    with world(path, late, answering(Reply(7))):
        c = client(path, 0.05)
        with fails(errno.EIO):
            c.call(Open())
        held.set()
        c = client(path)
        assert c.call(Open()).status == 7
        c.close()


def test_a_bus_that_hangs_on_purpose_is_waited_for(tmp_path: Path, client: Callable[..., WorldClient]) -> None:
    path = tmp_path / "bus"
    looks: list[None] = []

    def wanted() -> bool:
        looks.append(None)
        return True

    def hang(sock: socket.socket, _: Request) -> bool:
        sock.sendall(encode_reply(Reply(HANG)))
        timer = threading.Timer(0.3, sock.sendall, (encode_reply(Reply(5)),))  # longer than the client's time-out
        timer.start()
        timer.join()
        return False

    with world(path, hang):
        assert client(path, 0.1).call(Open(), wanted).status == 5
    assert looks


def test_a_caller_that_is_gone_is_not_waited_for(tmp_path: Path, client: Callable[..., WorldClient]) -> None:
    path = tmp_path / "bus"

    def hang(sock: socket.socket, _: Request) -> bool:
        sock.sendall(encode_reply(Reply(HANG)))
        return True

    with world(path, hang), fails(errno.EIO):
        client(path).call(Open(), lambda: False)


def test_interrupt_ends_a_call_that_waits(tmp_path: Path, client: Callable[..., WorldClient]) -> None:
    path = tmp_path / "bus"
    c = client(path)

    def hang(sock: socket.socket, _: Request) -> bool:
        sock.sendall(encode_reply(Reply(HANG)))
        c.interrupt()
        return True

    with world(path, hang), fails(errno.EIO):
        c.call(Open())
    with fails(errno.EIO):
        c.call(Open())
    c.interrupt()


def test_nonsense_from_the_world_is_eio(tmp_path: Path, client: Callable[..., WorldClient]) -> None:
    path = tmp_path / "bus"

    def nonsense(sock: socket.socket, _: Request) -> bool:
        sock.sendall(b"\xff" * 8)
        return False

    with world(path, nonsense), fails(errno.EIO):
        client(path).call(Open())
