"""SCPI for emulated instruments: program messages with binary blocks, long and short headers, the error queue.

IEEE 488.2, 7 (program messages) and SCPI-99 volume 1, 6-7 (headers, default nodes are not used here) and 21 (errors).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

MAX_ERRORS = 16

ERRORS = {
    0: "No error",
    -104: "Data type error",
    -108: "Parameter not allowed",
    -109: "Missing parameter",
    -113: "Undefined header",
    -161: "Invalid block data",
    -221: "Settings conflict",
    -222: "Data out of range",
    -224: "Illegal parameter value",
    -350: "Queue overflow",
}


class ScpiError(Exception):
    """An error for the queue; `detail` follows the standard text."""

    def __init__(self, code: int, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.text = ERRORS[code] + (f";{detail}" if detail else "")


@dataclass(frozen=True)
class Block:
    """A definite-length block as parameter."""

    data: bytes


Argument = bytes | Block


@dataclass(frozen=True)
class Unit:
    """One command or query of a message."""

    header: bytes
    arguments: tuple[Argument, ...] = ()


def block(data: bytes) -> bytes:
    """IEEE 488.2 definite-length block, 8.7.9: #, number of digits, length, data."""
    length = b"%d" % len(data)
    return b"#%d%s%s" % (len(length), length, data)


_SPECIAL = re.compile(rb"""[#;\n"']""")
_BLOCK_HEAD = re.compile(rb"(?<=[ ,])#[1-9]")


def split_message(message: bytes) -> list[Unit]:
    """Cut a program message into units.

    A block is taken out whole before separators are looked for, since any byte may occur inside. Raises
    ScpiError(-161) for a block that is cut short.
    """
    units: list[Unit] = []
    pieces: list[Argument] = []
    start = at = 0
    while found := _SPECIAL.search(message, at):
        at = found.start()
        mark = found[0]
        if mark == b"#":
            if not _BLOCK_HEAD.match(message, at):
                at += 1
                continue
            pieces += _words(message[start:at])
            data, at = _take_block(message, at)
            pieces.append(Block(data))
            start = at
        elif mark in b";\n":
            units += _unit([*pieces, *_words(message[start:at])])
            pieces, at = [], at + 1
            start = at
        else:
            end = message.find(mark, at + 1)
            at = len(message) if end < 0 else end + 1
    return units + _unit([*pieces, *_words(message[start:])])


def _take_block(message: bytes, at: int) -> tuple[bytes, int]:
    """The block whose # is at `at`, and where it ends."""
    digits = int(message[at + 1 : at + 2])
    head = at + 2 + digits
    length = message[at + 2 : head]
    if len(length) < digits or not length.isdigit() or head + int(length) > len(message):
        raise ScpiError(-161)
    return message[head : head + int(length)], head + int(length)


def _words(text: bytes) -> list[Argument]:
    """Header and comma-separated parameters of a stretch without blocks."""
    head, _, rest = text.strip().lstrip(b",").partition(b" ")
    words = [head, *rest.split(b",")] if rest.strip() else [head]
    return [w.strip() for w in words if w.strip()]


def _unit(pieces: Sequence[Argument]) -> list[Unit]:
    if not pieces:
        return []
    header, *arguments = pieces
    if isinstance(header, Block):
        raise ScpiError(-161)
    return [Unit(header, tuple(arguments))]


def number(argument: Argument) -> float:
    """A decimal parameter. Raises ScpiError(-104)."""
    try:
        assert not isinstance(argument, Block)
        value = float(argument)
    except (AssertionError, ValueError):
        raise ScpiError(-104) from None
    if value != value or value in (float("inf"), float("-inf")):
        raise ScpiError(-104)
    return value


def integer(argument: Argument) -> int:
    """A whole number, exact to any size. Raises ScpiError(-104)."""
    try:
        assert not isinstance(argument, Block)
        return int(argument)
    except (AssertionError, ValueError):
        raise ScpiError(-104) from None


def word(argument: Argument) -> str:
    """A word such as ON or KEY, in capitals. Raises ScpiError(-104)."""
    if isinstance(argument, Block):
        raise ScpiError(-104)
    return argument.decode("ascii", "replace").upper()


def boolean(argument: Argument) -> bool:
    """ON, OFF, or a number. Raises ScpiError(-104)."""
    text = word(argument)
    return text == "ON" if text in ("ON", "OFF") else number(argument) != 0.0


def pair(values: tuple[int, int]) -> str:
    """Two whole numbers as a response."""
    return f"{values[0]},{values[1]}"


Handler = Callable[..., "bytes | str | None"]


@dataclass
class Commands:
    """Headers and what they do. A pattern gives the short form in capitals, `#` for a numeric suffix:
    "SYMBol:PROBability:BASis?", "INPut#:DELay"."""

    _table: list[tuple[re.Pattern[str], Handler, int, int]] = field(default_factory=list)
    _known: dict[str, tuple[Handler, int, int, tuple[int, ...]]] = field(default_factory=dict)

    def add(self, pattern: str, handler: Handler, least: int = 0, most: int | None = None) -> None:
        """`handler` gets the numeric suffixes (default 1), then the arguments, `least` to `most` of them."""
        self._table.append((_header_pattern(pattern), handler, least, least if most is None else most))

    def find(self, header: str) -> tuple[Handler, int, int, tuple[int, ...]] | None:
        """Handler, least and most arguments, suffixes; None for an unknown header."""
        known = self._known.get(header)
        if known is None:
            for pattern, handler, least, most in self._table:
                match = pattern.fullmatch(header)
                if match:
                    suffixes = tuple(int(s) if s else 1 for s in match.groups())
                    known = self._known[header] = (handler, least, most, suffixes)
                    break
        return known


def _header_pattern(pattern: str) -> re.Pattern[str]:
    nodes = []
    for node in pattern.rstrip("?").split(":"):
        short = re.match(r"\*?[A-Z]+", node)
        assert short is not None, pattern
        text = node.rstrip("#")
        tail = text[short.end() :].upper()
        nodes.append(re.escape(short[0]) + (f"(?:{tail})?" if tail else "") + (r"(\d*)" if node.endswith("#") else ""))
    return re.compile(":".join(nodes) + (r"\?" if pattern.endswith("?") else ""))


class ScpiInstrument:
    """Runs messages against a command table. Subclasses add their commands in __init__ and override `reset`."""

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self._errors: deque[tuple[int, str]] = deque()
        self.commands = Commands()
        self.commands.add("*IDN?", lambda: self._identity)
        self.commands.add("*RST", self.reset)
        self.commands.add("*CLS", self._errors.clear)
        self.commands.add("*OPC?", lambda: "1")
        self.commands.add("*STB?", lambda: str(4 if self._errors else 0))
        self.commands.add("SYSTem:ERRor?", self._next_error)
        self.commands.add("SYSTem:ERRor:NEXT?", self._next_error)

    def reset(self) -> None:
        """*RST: settings to their defaults."""

    def execute(self, message: bytes) -> bytes | None:
        """Run a whole program message; returns the response message with its newline, None where there is none."""
        answers: list[bytes] = []
        node = ""
        try:
            for unit in split_message(message):
                node, answer = self._run(unit, node)
                if answer is not None:
                    answers.append(answer)
        except ScpiError as error:  # what follows a wrong unit is not run
            self._fail(error)
        return b";".join(answers) + b"\n" if answers else None

    def _run(self, unit: Unit, node: str) -> tuple[str, bytes | None]:
        """One unit; returns the node that the next header is relative to."""
        header = unit.header.decode("ascii", "replace").upper()
        name = header.lstrip(":")
        found = None
        if node and not header.startswith((":", "*")):
            found = self.commands.find(f"{node}:{name}")
            if found is not None:
                name = f"{node}:{name}"
        found = found or self.commands.find(name)
        if found is None:
            raise ScpiError(-113, name[:40])
        handler, least, most, suffixes = found
        if len(unit.arguments) < least:
            raise ScpiError(-109)
        if len(unit.arguments) > most:
            raise ScpiError(-108)
        answer = handler(*suffixes, *unit.arguments)
        if not name.startswith("*"):
            node = name.rpartition(":")[0]
        return node, answer.encode("ascii") if isinstance(answer, str) else answer

    def _fail(self, error: ScpiError) -> None:
        if len(self._errors) < MAX_ERRORS:
            self._errors.append((error.code, error.text))
        else:
            self._errors[-1] = (-350, ERRORS[-350])

    def _next_error(self) -> str:
        code, text = self._errors.popleft() if self._errors else (0, ERRORS[0])
        return f'{code},"{text}"'
