"""Runs the filter in a small BPF interpreter, for both architectures on any machine."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.server.seccomp.filter import (
    AARCH64,
    ALLOW,
    ARCHITECTURES,
    NOTIFY,
    TTY_COMMANDS,
    X86_64,
    Architecture,
    Call,
    assemble,
    program,
    this_architecture,
)

MACHINES = pytest.mark.parametrize("machine", [X86_64, AARCH64], ids=["x86_64", "aarch64"])


def evaluate(code: bytes, data: bytes) -> int:
    """Classic BPF over struct seccomp_data, as the kernel runs it."""
    instructions = list(struct.iter_unpack("<HBBI", code))
    a = at = 0
    for _ in range(len(instructions)):
        op, jt, jf, k = instructions[at]
        at += 1
        if op == 0x20:
            (a,) = struct.unpack_from("<I", data, k)
        elif op == 0x15:
            at += jt if a == k else jf
        elif op == 0x35:
            at += jt if a >= k else jf
        elif op == 0x54:
            a &= k
        elif op == 0x06:
            return int(k)
        else:
            raise AssertionError(f"unknown instruction {op:#x}")
    raise AssertionError("fell off the end")


def verdict(machine: Architecture, number: int, args: Sequence[int] = (), arch: int | None = None) -> int:
    padded = [*args, *[0] * (6 - len(args))]
    data = struct.pack("<iIQ6Q", number, machine.audit if arch is None else arch, 0x7FFF12345678, *padded)
    return evaluate(assemble(program(machine)), data)


def number_of(machine: Architecture, call: Call) -> int:
    return next(n for n, c in machine.calls.items() if c is call)


@MACHINES
def test_every_open_stops(machine: Architecture) -> None:
    for number, call in machine.calls.items():
        if call in (Call.OPEN, Call.OPENAT, Call.OPENAT2):
            assert verdict(machine, number, [2**64 - 100, 0x7FFFDEADBEEF, 0x80000]) == NOTIFY


@MACHINES
@pytest.mark.parametrize("call", [Call.READ, Call.WRITE])
@pytest.mark.parametrize(
    ("fd", "stops"),
    [(0, False), (899, False), (900, True), (963, True), (964, False)],
)
def test_reads_and_writes_stop_on_reserved_descriptors_only(
    machine: Architecture, call: Call, fd: int, stops: bool
) -> None:
    assert verdict(machine, number_of(machine, call), [fd, 1, 1]) == (NOTIFY if stops else ALLOW)


@MACHINES
@pytest.mark.parametrize(
    "command",
    [0x0703, 0x0705, 0x0707, 0x0720, 0x40206B00, 0x80016B01, 0x40046B04, 0xFFFFFFFF40206B00, *TTY_COMMANDS],
    ids=hex,
)
def test_ioctls_of_buses_and_lines_stop(machine: Architecture, command: int) -> None:
    assert verdict(machine, number_of(machine, Call.IOCTL), [3, command, 0]) == NOTIFY


@MACHINES
@pytest.mark.parametrize("command", [0x541B, 0x5421, 0x5451, 0xC0502100, 0x8912, 0x0801, 0x5409], ids=hex)
def test_other_ioctls_run_on(machine: Architecture, command: int) -> None:
    assert verdict(machine, number_of(machine, Call.IOCTL), [3, command, 0]) == ALLOW


@MACHINES
@given(number=st.integers(0, 600), args=st.lists(st.integers(0, 2**64 - 1), max_size=6))
def test_calls_of_another_architecture_run_on(machine: Architecture, number: int, args: list[int]) -> None:
    assert verdict(machine, number, args, arch=0x40000003) == ALLOW


@MACHINES
@given(number=st.integers(0, 600), args=st.lists(st.integers(0, 2**64 - 1), max_size=6))
def test_every_other_call_runs_on(machine: Architecture, number: int, args: list[int]) -> None:
    if number not in machine.calls:
        assert verdict(machine, number, args) == ALLOW


def test_numbers_are_those_of_the_kernels_tables() -> None:
    # arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h
    assert {c.value: n for n, c in X86_64.calls.items()} == {
        "read": 0, "write": 1, "open": 2, "ioctl": 16, "openat": 257, "openat2": 437,
    }  # fmt: skip
    assert {c.value: n for n, c in AARCH64.calls.items()} == {
        "ioctl": 29, "openat": 56, "read": 63, "write": 64, "openat2": 437,
    }  # fmt: skip
    assert (X86_64.seccomp, AARCH64.seccomp) == (317, 277)


def test_machine_without_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert this_architecture() is ARCHITECTURES["aarch64"]
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert this_architecture() is None
