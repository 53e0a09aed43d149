"""What the VISA servers need of a message-based instrument."""

from __future__ import annotations

from typing import Protocol


class ScpiTwin(Protocol):
    """An instrument that takes whole program messages, binary blocks included.

    `late_s`: world seconds by which the reply of the last message is to be held back. `present`: False while unplugged.
    """

    @property
    def late_s(self) -> float: ...
    @property
    def present(self) -> bool: ...
    def execute(self, message: bytes, /) -> bytes | None:
        """The response message, with or without its final newline; None when there is none."""
        ...


def terminated(response: bytes) -> bytes:
    """A response message with its terminator (IEEE 488.2, 8.5): a block's last byte may look like one."""
    if response.startswith(b"#") or not response.endswith(b"\n"):
        return response if _is_terminated_block(response) else response + b"\n"
    return response


def _is_terminated_block(response: bytes) -> bool:
    end = block_end(response, 0)
    return end is not None and len(response) == end + 1 and response.endswith(b"\n")


def block_end(message: bytes | bytearray, start: int) -> int | None:
    """Index after the definite-length block that begins with the # at `start`.

    None when there is no such block, or when its head is not complete yet.
    """
    digits = message[start + 1 : start + 2]
    if message[start : start + 1] != b"#" or not digits.isdigit() or digits == b"0":
        return None
    head = start + 2 + int(digits)
    count = message[start + 2 : head]
    if len(count) != int(digits) or not count.isdigit():
        return None
    return head + int(count)


class MessageSplitter:
    """Cuts a byte stream into program messages at newlines outside of definite-length blocks and quoted strings."""

    def __init__(self, limit: int = 1 << 26) -> None:
        self._buffer = bytearray()
        self._at = 0  # everything before it has been looked at
        self._quote = 0
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """Messages complete by now, without their newline (a carriage return before it stays).

        Raises ValueError when one grows beyond the limit.
        """
        self._buffer += data
        messages = []
        while (end := self._next_end()) is not None:
            messages.append(bytes(self._buffer[:end]))
            del self._buffer[: end + 1]
            self._at = 0
        if len(self._buffer) > self._limit:
            raise ValueError(f"program message longer than {self._limit} bytes")
        return messages

    def _next_end(self) -> int | None:
        """Index of the newline that ends the first message; None: not here yet."""
        buffer = self._buffer
        while self._at < len(buffer):
            byte = buffer[self._at]
            if self._quote:
                self._quote = 0 if byte == self._quote else self._quote
            elif byte in b"\"'":
                self._quote = byte
            elif byte == 0x0A:
                return self._at
            elif byte == 0x23:
                if self._head_is_cut():
                    return None
                end = block_end(buffer, self._at)
                if end is not None:
                    if end > len(buffer):
                        return None
                    self._at = end
                    continue
            self._at += 1
        return None

    def _head_is_cut(self) -> bool:
        """A # whose digits have not all arrived."""
        digits = self._buffer[self._at + 1 : self._at + 2]
        if not digits:
            return True
        return digits.isdigit() and len(self._buffer) < self._at + 2 + int(digits)
