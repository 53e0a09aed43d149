"""What runs in the worker process: an idle-priority bench (SCHED_IDLE, nice 19) that ends with its parent.

One process with a thread for each lane, not a process for each: the kernels release the interpreter's lock, so lanes
use several cores all the same, a block's bits never move from one stage to the next, and the compiler is loaded once.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import threading
from multiprocessing.connection import wait
from queue import SimpleQueue
from typing import Any

from qmodd.keys import parcels
from qmodd.keys.bench import Bench
from qmodd.randomness import SystemRandomness

# Calls of one lane run one after the other, in the order in which they were made; lanes run beside each other.
FRAMES, SIFT, CORRECT, SEAL = range(4)
LANES = {
    "sift": SIFT,
    "syndromes": CORRECT,
    "disclose": CORRECT,
    "correct": CORRECT,
    "assist": CORRECT,
    "corrected": CORRECT,
    "verification_tag": SEAL,
    "amplify": SEAL,
}
# A lane that holds the interpreter's lock for glue between kernels must not keep the others waiting for 5 ms.
_SWITCH_S = 2e-4
# Arrays of some MB come and go with every batch. Handed back to the system each time, as the allocator's defaults have
# it, their pages are faulted in and cleared anew, which costs more than what is computed on them (mallopt(3)).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEEP_BYTES = 1 << 26
_OWN_BYTES = 1 << 24
# number of the call (-1: nobody waits for the answer), method, arguments
Call = tuple[int, str, tuple[Any, ...]]


def keep_pages() -> None:
    """Let the allocator keep what it got, in one arena; without effect where the C library has no `mallopt`."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for parameter, value in ((_ARENA_MAX, 1), (_TRIM_THRESHOLD, _KEEP_BYTES), (_MMAP_THRESHOLD, _OWN_BYTES)):
            library.mallopt(parameter, value)


def start() -> Bench:
    """Take the lowest priority and compile what there is to compile."""
    keep_pages()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.nice(19)
    # The terminal's Ctrl-C reaches the whole group; it is the parent that decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_S)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    bench = Bench(SystemRandomness())
    bench.warm_up()
    return bench


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def main(end: socket.socket) -> None:
    """The process: serve calls until the parent closes the socket."""
    serve(end, start())
    os._exit(0)  # without waiting for lanes whose results nobody wants any more


def serve(end: socket.socket, bench: Bench) -> None:
    """Hand calls out to the lanes until the far end closes."""
    queues: list[SimpleQueue[Call | None]] = [SimpleQueue() for _ in range(SEAL + 1)]
    answering = threading.Lock()
    threads = [
        threading.Thread(target=_lane, args=(bench, q, end, answering), name=f"lane-{i}", daemon=True)
        for i, q in enumerate(queues)
    ]
    for t in threads:
        t.start()
    while True:
        try:
            call: Call = parcels.take(end)
        except parcels.Closed:
            break
        queues[LANES.get(call[1], FRAMES)].put(call)
    for q in queues:
        q.put(None)


def _lane(bench: Bench, calls: SimpleQueue[Call | None], end: socket.socket, answering: threading.Lock) -> None:
    while (call := calls.get()) is not None:
        number, method, arguments = call
        ok, result = answer(bench, method, arguments)
        del call, arguments  # their pages
        if number < 0:
            continue
        datagram, fd = parcels.Parcel((number, ok, result)).written()
        if method == "amplify" and ok:
            result[:] = 0
        try:
            with answering:
                parcels.put(end, datagram, fd)
        except parcels.Closed:
            return


def answer(bench: Bench, method: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    """(True, result) or (False, what was raised)."""
    try:
        return True, getattr(bench, method)(*arguments)
    except Exception as e:
        return False, e
