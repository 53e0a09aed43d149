"""Which part explains the failures: a part is to blame when it fails and nothing that it needs does.

A failure whose needs include a part that fails itself is a consequence: behind a dead supply everything is dark. Among
the roots, the part with the most findings that failed, its own and those that need it, comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qmodd.selftest.model import Finding, Verdict


def suspects(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Parts to blame, the most likely first; () when nothing failed."""
    failed = [f for f in findings if f.verdict is Verdict.FAILED]
    broken = {f.part for f in failed}
    names = {f.name: f.part for f in failed}
    needed = {part: _needs(part, failed, names) & broken for part in broken}
    roots = [part for part in broken if not (_closure(part, needed) - _circle(part, needed))]
    weight = {root: sum(root == f.part or root in _closure(f.part, needed) for f in failed) for root in roots}
    first = {part: i for i, part in reversed(list(enumerate(f.part for f in failed)))}
    return tuple(sorted(roots, key=lambda part: (-weight[part], first[part])))


def _needs(part: str, failed: Iterable[Finding], names: dict[str, str]) -> set[str]:
    """Only what every failure of the part needs explains the part: one failure that stands alone makes it a root."""
    sets = [{names.get(n, n) for n in f.needs} - {part} for f in failed if f.part == part]
    explained = [s & {f.part for f in failed} for s in sets]
    return set().union(*explained) if all(explained) else set()


def _closure(part: str, needed: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = list(needed[part])
    while todo:
        other = todo.pop()
        if other not in found:
            found.add(other)
            todo += needed[other]
    return found


def _circle(part: str, needed: dict[str, set[str]]) -> set[str]:
    """Parts that need one another: none of them explains the others."""
    return {part} | {other for other in _closure(part, needed) if part in _closure(other, needed)}
