"""Kills a process that is not one: after the n-th sync, rename, unlink or commit nothing more happens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

CALLS = ("fsync", "replace", "unlink", "dup2")


class Killed(BaseException):
    """The power goes."""


@contextmanager
def killed_after(step: int, monkeypatch: pytest.MonkeyPatch, databases: Sequence[Any] = ()) -> Iterator[list[str]]:
    """Raises Killed right after step `step` (from 0); what was done before is told. `databases` have `transaction`."""
    done: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*a: Any, **k: Any) -> Any:
            out = real(*a, **k)
            done.append(name)
            if len(done) > step:
                raise Killed
            return out

        return call

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, counted(name, getattr(os, name)))
        for database in databases:
            patch.setattr(database, "transaction", _committing(database.transaction, counted("commit", lambda: None)))
        yield done


def _committing(real: Callable[..., Any], committed: Callable[[], None]) -> Callable[..., Any]:
    @contextmanager
    def transaction(*a: Any, **k: Any) -> Iterator[Any]:
        with real(*a, **k) as db:
            yield db
        committed()

    return transaction
