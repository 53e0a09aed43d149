"""The kernel's side against a scripted ioctl: what older kernels and vanished callers do."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sim.server.seccomp import notify
from sim.server.seccomp.filter import X86_64
from sim.server.seccomp.notify import FilterInstaller, Listener
from tests.sim.server.seccomp.fakes import fails

RECV, SEND, ADDFD = 0xC0502100, 0xC0182101, 0x40182103
Ioctls = Callable[..., list[tuple[int, Any]]]


@pytest.fixture
def ioctls(monkeypatch: pytest.MonkeyPatch) -> Ioctls:
    """Script the errors of the ioctls to come (0: success); returns the list of calls made."""

    def script(*errors: int) -> list[tuple[int, Any]]:
        queue, calls = list(errors), []

        def ioctl(fd: int, request: int, argument: bytes | bytearray) -> int:
            calls.append((request, bytes(argument)))
            code = queue.pop(0) if queue else 0
            if code:
                raise OSError(code, os.strerror(code))
            if request == RECV:
                argument[:] = notify._NOTIFICATION.pack(9, 4711, 0, 257, X86_64.audit, 0, 1, 2, 3, 4, 5, 6)  # type: ignore[index]
            return 0

        monkeypatch.setattr("fcntl.ioctl", ioctl)
        return calls

    return script


@pytest.fixture
def listener() -> Iterator[tuple[Listener, int]]:
    """A listener on a pipe, and the pipe's other end."""
    read, write = os.pipe()
    made = Listener(read)
    yield made, write
    made.close()
    os.close(write)


def test_receive_skips_callers_that_were_interrupted(listener: tuple[Listener, int], ioctls: Ioctls) -> None:
    ours, far = listener
    os.write(far, b"x")
    calls = ioctls(errno.ENOENT, errno.EINTR, 0)
    n = ours.receive()
    assert n is not None
    assert (n.id, n.pid, n.number, n.arch, n.args) == (9, 4711, 257, X86_64.audit, (1, 2, 3, 4, 5, 6))
    assert len(calls) == 3
    assert calls[0][1] == bytes(80)  # the kernel insists on a zeroed struct
    ioctls(errno.EBADF)
    with fails(errno.EBADF):
        ours.receive()


def test_wake_ends_receiving(listener: tuple[Listener, int]) -> None:
    ours, _ = listener
    ours.wake()
    assert ours.receive() is None
    assert ours.receive() is None


def test_answers(listener: tuple[Listener, int], ioctls: Ioctls) -> None:
    ours, _ = listener
    calls = ioctls(0, 0, 0, errno.ENOENT, errno.EPERM)
    ours.answer(9, 5)
    ours.answer(9, -errno.EIO)
    ours.let_through(9)
    ours.answer(9, 0)  # the caller is gone
    with fails(errno.EPERM):
        ours.answer(9, 0)
    sent = [notify._RESPONSE.unpack(raw) for _, raw in calls]
    assert sent[:3] == [(9, 5, 0, 0), (9, 0, -errno.EIO, 0), (9, 0, 0, 1)]


def test_validity(listener: tuple[Listener, int], ioctls: Ioctls) -> None:
    ours, _ = listener
    ioctls(0, errno.ENOENT, errno.EPERM)
    assert ours.valid(9)
    assert not ours.valid(9)
    with fails(errno.EPERM):
        ours.valid(9)


def test_a_file_in_one_step_or_before_5_14_in_two(listener: tuple[Listener, int], ioctls: Ioctls) -> None:
    ours, _ = listener
    calls = ioctls()
    ours.answer_with_file(9, 3, 900, close_on_exec=True)
    assert [request for request, _ in calls] == [ADDFD]
    assert notify._ADD.unpack(calls[0][1]) == (9, 3, 3, 900, os.O_CLOEXEC)
    calls = ioctls(errno.EINVAL)
    ours.answer_with_file(9, 3, 900, close_on_exec=False)
    assert [request for request, _ in calls] == [ADDFD, ADDFD, SEND]
    assert notify._ADD.unpack(calls[1][1]) == (9, 1, 3, 900, 0)
    assert notify._RESPONSE.unpack(calls[2][1]) == (9, 900, 0, 0)


@pytest.mark.parametrize("errors", [(errno.ENOENT,), (errno.EINVAL, errno.ENOENT)])
def test_a_file_for_a_caller_that_is_gone(
    listener: tuple[Listener, int], ioctls: Ioctls, errors: tuple[int, ...]
) -> None:
    calls = ioctls(*errors)
    listener[0].answer_with_file(9, 3, 900, close_on_exec=True)
    assert len(calls) == len(errors)


@pytest.mark.parametrize("errors", [(errno.EBADF,), (errno.EINVAL, errno.EBADF)])
def test_a_number_that_the_callers_limit_forbids(
    listener: tuple[Listener, int], ioctls: Ioctls, errors: tuple[int, ...]
) -> None:
    ioctls(*errors)
    with fails(errno.EBADF):
        listener[0].answer_with_file(9, 3, 900, close_on_exec=True)


class Libc:
    """Records the seccomp calls; fails those with the given flags."""

    def __init__(self, failing: dict[int, int]) -> None:
        self.failing = failing
        self.flags: list[int] = []

    def prctl(self, *args: int) -> int:
        return 0

    def syscall(self, number: int, operation: int, flags: int, program: object) -> int:
        self.flags.append(flags)
        code = self.failing.get(flags, 0)
        ctypes.set_errno(code)
        return -1 if code else 77


@pytest.mark.parametrize(
    ("failing", "tried", "error"),
    [
        ({}, [40], 0),
        ({40: errno.EINVAL}, [40, 8], 0),  # before 5.19
        ({40: errno.EINVAL, 8: errno.EINVAL}, [40, 8], errno.EINVAL),
        ({40: errno.EACCES}, [40], errno.EACCES),
        ({40: errno.EBUSY}, [40], errno.EBUSY),  # a filter of an ancestor has a listener
    ],
)
def test_installing_on_kernels_of_all_ages(failing: dict[int, int], tried: list[int], error: int) -> None:
    installer = FilterInstaller(X86_64)
    libc = installer._libc = Libc(failing)  # type: ignore[assignment]
    if error:
        with fails(error):
            installer.install()
    else:
        assert installer.install() == 77
    assert libc.flags == tried
