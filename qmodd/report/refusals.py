"""For what a calibration is refused, read from the code that refuses: the messages, with dots for what is filled in."""

from __future__ import annotations

import ast
import inspect
import sys

from calibration.procedure import Procedure

REFUSE = {"CalibrationRefused", "FitRefused", "LightRefused"}
DOTS = "…"


def refusals(procedure: Procedure) -> list[str]:
    """Messages in the order of the code of the procedure's module; helpers that it shares with others are not in it."""
    source = inspect.getsource(sys.modules[type(procedure).__module__])
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REFUSE and node.args:
            message = _text(node.args[-1])
            if any(c.isalpha() for c in message):
                found.append((node.lineno, message))
    return list(dict.fromkeys(text for _, text in sorted(found)))


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return DOTS
