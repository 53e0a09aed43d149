"""Parcels: what is sent arrives, in a datagram or in shared memory, aligned and writable; no descriptor is left."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmodd.keys import parcels


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        yield a, b


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@given(st.lists(st.integers(0, 40_000), max_size=4), st.binary(max_size=40_000))
def test_what_is_sent_arrives(sizes: list[int], data: bytes) -> None:
    before = descriptors()
    arrays = [np.arange(n, dtype=np.int64) for n in sizes]
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        parcel = parcels.Parcel((arrays, data))
        datagram, fd = parcel.written()
        assert (fd >= 0) == (parcel.size > parcels.INLINE_BYTES)
        parcels.put(a, datagram, fd)
        got, same = parcels.take(b)
    assert same == data
    for ours, theirs in zip(arrays, got, strict=True):
        assert np.array_equal(ours, theirs)
        assert len(theirs) == 0 or theirs.ctypes.data % 8 == 0
        theirs[:] = 1  # what a compiled kernel asks for
    del got, arrays, parcel
    ours = theirs = None
    assert descriptors() == before


def test_big_arrays_are_mapped_and_outlive_the_parcel(pair: tuple[socket.socket, socket.socket]) -> None:
    array = np.random.default_rng(1).integers(0, 2, 3_000_000).astype(np.uint8)
    parcel = parcels.Parcel(array)
    assert parcel.large
    parcels.put(pair[0], *parcel.written())
    got = parcels.take(pair[1])
    assert got.ctypes.data % 64 == 0
    assert np.array_equal(got, array)


def test_a_far_end_that_is_gone_is_named(pair: tuple[socket.socket, socket.socket]) -> None:
    before = descriptors()
    pair[1].close()
    with pytest.raises(parcels.Closed):
        parcels.put(pair[0], *parcels.Parcel(bytes(100_000)).written())
    with pytest.raises(parcels.Closed):
        parcels.take(pair[0])
    assert descriptors() == before - 1


def test_a_full_socket_sends_nothing_and_keeps_the_descriptor(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            parcels.put(pair[0], bytes(8000), -1)
    datagram, fd = parcels.Parcel(bytes(100_000)).written()
    with pytest.raises(BlockingIOError):
        parcels.put(pair[0], datagram, fd)
    os.close(fd)  # still open


async def test_an_empty_socket_does_not_block(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        parcels.take(pair[1])
    await asyncio.sleep(0)
