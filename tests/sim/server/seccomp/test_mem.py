from __future__ import annotations

import ctypes
import errno
import os

import pytest

from sim.server.seccomp.mem import ProcessMemory, descriptor_target, is_open
from tests.sim.server.seccomp.fakes import fails


def test_reads_and_writes_where_a_pointer_leads() -> None:
    buffer = ctypes.create_string_buffer(b"photon", 16)
    with ProcessMemory(os.getpid()) as memory:
        assert memory.read(ctypes.addressof(buffer), 6) == b"photon"
        memory.write(ctypes.addressof(buffer), b"ph0")
        assert buffer.value == b"ph0ton"
        assert memory.read(0, 0) == b""
        memory.write(0, b"")


@pytest.mark.parametrize("address", [0, 8, 2**63, 2**64 - 1])
def test_a_pointer_to_nowhere_is_efault(address: int) -> None:
    with ProcessMemory(os.getpid()) as memory:
        assert memory.read_some(address, 4) == b""
        with fails(errno.EFAULT):
            memory.read(address, 4)
        with fails(errno.EFAULT):
            memory.write(address, b"abcd")


def test_descriptors() -> None:
    read, write = os.pipe()
    try:
        assert descriptor_target(os.getpid(), read).startswith("pipe:")
        assert is_open(os.getpid(), write)
    finally:
        os.close(read)
        os.close(write)
    assert descriptor_target(os.getpid(), write) == ""
    assert not is_open(os.getpid(), write)
