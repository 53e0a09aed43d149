"""The emulated devices that the supervised program has open.

The program holds a memfd for each; its name carries our number of the open file, so that any descriptor of any of its
processes, duplicated and inherited ones too, is recognised by looking where it points.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass

from sim.server.seccomp.i2c_ioctl import I2cFile
from sim.server.seccomp.spi_ioctl import SpiFile

KEPT = 1024
"""Open files remembered; closing is not seen, so those unused for longest are forgotten."""
_NAME = re.compile(r"^/memfd:qmodd-bus-(\d+)(?: \(deleted\))?$")
I2C_PREFIX, SPI_PREFIX = "/dev/i2c-", "/dev/spidev"


@dataclass(frozen=True)
class OpenFile:
    path: str
    state: I2cFile | SpiFile


def new_state(path: str) -> I2cFile | SpiFile:
    return I2cFile() if path.startswith(I2C_PREFIX) else SpiFile()


class OpenFiles:
    """Numbered open files. Thread-safe."""

    def __init__(self, kept: int = KEPT) -> None:
        self._files: OrderedDict[int, OpenFile] = OrderedDict()
        self._kept = kept
        self._next = 1
        self._lock = threading.Lock()

    def add(self, path: str) -> int:
        """Remember a newly opened device; returns its number."""
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._files[number] = OpenFile(path, new_state(path))
            while len(self._files) > self._kept:
                self._files.popitem(last=False)
            return number

    def find(self, target: str) -> OpenFile | None:
        """The open file behind what a descriptor points to; None when it is none of ours."""
        match = _NAME.match(target)
        if match is None:
            return None
        number = int(match[1])
        with self._lock:
            found = self._files.get(number)
            if found is not None:
                self._files.move_to_end(number)
            return found


def stand_in(number: int) -> int:
    """Descriptor of a new memfd that stands for an open file in the program."""
    return os.memfd_create(f"qmodd-bus-{number}")
