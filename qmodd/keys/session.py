"""A session of the service channel: fresh keys for the frame filter from both sides' nonces, then messages in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from qmodd.channel import MessageChannel
from qmodd.crypto import mac
from qmodd.keys import protocol
from qmodd.keys.authentication import (
    NONCE_BYTES,
    Direction,
    FrameFilter,
    SessionBroken,
    is_hello,
    open_hello,
    seal_hello,
)
from qmodd.keys.fields import ProtocolError
from qmodd.keys.protocol import PROTOCOL_VERSION, Hello, Message
from qmodd.randomness import Randomness

_RESEND_S = 2.0


@dataclass(frozen=True)
class Party:
    """Who this module is and whom it expects; `peer_serial` empty accepts any holder of the pair's secret."""

    me: Direction
    serial: str
    link: str
    peer_serial: str = ""


class Session:
    """One object for all sessions of an engine.

    A HELLO carries a nonce and the nonce that it answers, empty for one that asks for a session. The nonce that we
    offer stays the same until a session is made with it. A HELLO that answers it opens that session (each side has then
    seen the other answer something new); one that asks is answered and changes nothing else; any other is old and
    nothing follows. So what is played back ends no session, no pair of nonces is used twice, and HELLOs that cross end
    in one session, whatever their number.
    """

    def __init__(self, channel: MessageChannel, secret: mac.Secret, party: Party, randomness: Randomness) -> None:
        self._channel = channel
        self._secret = secret
        self._party = party
        self._random = randomness
        # What we offer for the next session.
        self._nonce = b""
        self._filter: FrameFilter | None = None
        self._sending = asyncio.Lock()
        self.peer_serial = ""
        self.refused = ""
        self.on_refused: Callable[[str], None] = lambda why: None
        # The far end's HELLO ended a session and has opened the next one already: no `open` is due.
        self.restarted = False
        self.forged = 0
        self.replayed = 0

    async def open(self) -> None:
        """Handshake, from the beginning. Raises ChannelDown. Waits as long as the far end does not answer."""
        self._leave()
        self._nonce = self._random.bytes(NONCE_BYTES)
        loop = asyncio.get_running_loop()
        resend_at = loop.time()
        while self._filter is None:
            # By the clock, not by silence: frames that are no answer must not put it off.
            if loop.time() >= resend_at:
                await self._send_hello(b"")
                resend_at = loop.time() + _RESEND_S
            try:
                async with asyncio.timeout_at(resend_at):
                    frame = await self._channel.receive()
            except TimeoutError:
                continue
            if is_hello(frame):
                await self._on_hello(frame)

    def close(self) -> None:
        """The session is over; the next one begins with `open`."""
        self.restarted = False
        self._leave()

    async def send(self, message: Message | bytes) -> None:
        """Raises ChannelDown, or SessionBroken if there is no session."""
        data = message if isinstance(message, bytes) else protocol.encode(message)
        async with self._sending:
            if self._filter is None:
                raise SessionBroken("no session")
            await self._channel.send(self._filter.seal(data))

    async def receive(self) -> tuple[Message, bytes]:
        """The next message and its bytes. Raises ChannelDown, SessionBroken, ProtocolError."""
        while True:
            frame = await self._channel.receive()
            if is_hello(frame):
                if await self._on_hello(frame):
                    self.restarted = True
                    raise SessionBroken("the far end began a new session")
                continue
            if self._filter is None:
                raise SessionBroken("no session")
            data = self._filter.open(frame)
            if data is not None:
                return protocol.decode(data), data

    async def _on_hello(self, frame: bytes) -> bool:
        """Answer it if it asks or answers; True if it opened a session."""
        hello = self._hello(frame)
        if hello is None:
            return False
        # Under the lock, so that no frame of the new session overtakes the HELLO that explains it.
        async with self._sending:
            opens = hello.answers == self._nonce
            if opens or not hello.answers:
                answer = self._sealed_hello(hello.nonce)
                if opens:
                    self._adopt(hello.nonce)
                await self._channel.send(answer)
            return opens

    def _hello(self, frame: bytes) -> Hello | None:
        """A genuine HELLO of the peer of this link, else None with a reason in `refused`."""
        before = self.refused
        hello = self._judge(frame)
        if self.refused and self.refused != before:
            self.on_refused(self.refused)
        return hello

    def _judge(self, frame: bytes) -> Hello | None:
        body = open_hello(self._secret, self._party.me.peer, frame)
        if body is None:
            if is_hello(frame):
                self.forged += 1
                self.refused = "the far end does not hold this pair's pre-shared secret"
            return None
        try:
            hello = protocol.decode(body)
        except ProtocolError:
            hello = None
        if not isinstance(hello, Hello):
            self.refused = "the far end speaks another protocol"
            return None
        self.refused = self._why_not(hello)
        return None if self.refused else hello

    def _why_not(self, hello: Hello) -> str:
        party = self._party
        if hello.version != PROTOCOL_VERSION:
            return f"the far end speaks version {hello.version} of the protocol, this module {PROTOCOL_VERSION}"
        if hello.link != party.link:
            return f"the far end belongs to link {hello.link!r}, this module to {party.link!r}"
        if party.peer_serial and hello.serial != party.peer_serial:
            return f"the far end is {hello.serial!r}, expected is {party.peer_serial!r}"
        if len(hello.nonce) != NONCE_BYTES or len(hello.answers) not in (0, NONCE_BYTES):
            return "the far end's nonce has the wrong length"
        self.peer_serial = hello.serial
        return ""

    async def _send_hello(self, answers: bytes) -> None:
        async with self._sending:
            await self._channel.send(self._sealed_hello(answers))

    def _sealed_hello(self, answers: bytes) -> bytes:
        p = self._party
        hello = Hello(PROTOCOL_VERSION, p.me.name.lower(), p.serial, p.link, self._nonce, answers)
        return seal_hello(self._secret, p.me, protocol.encode(hello))

    def _adopt(self, peer_nonce: bytes) -> None:
        self._leave()
        alice, bob = self._nonce, peer_nonce
        if self._party.me is Direction.BOB:
            alice, bob = bob, alice
        self._filter = FrameFilter(self._secret, self._party.me, alice, bob, self._party.link)
        self._nonce = self._random.bytes(NONCE_BYTES)

    def _leave(self) -> None:
        if self._filter is not None:
            self.forged += self._filter.counters.forged
            self.replayed += self._filter.counters.replayed
        self._filter = None
