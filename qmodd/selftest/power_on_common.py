"""What the power-on checks share: findings of a device, and a device that fails in the middle of its check."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from drivers.bus.address import I2cAddress, parse_address
from drivers.errors import DriverError
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Finding, Limits

YES = Limits.exactly(1.0)
NONE = Limits.exactly(0.0)
SPARE = "spare"


def device(bench: Bench, role: str) -> Any:
    """The driver that plays a role, without the guard that may stand in its place; None when there is none."""
    found = bench.module.devices.get(role)
    return getattr(found, "bare", found)


def of_device(
    bench: Bench,
    role: str,
    name: str,
    value: float,
    limits: Limits,
    unit: str = "",
    hint: str = "",
    needs: tuple[str, ...] = (),
) -> Finding:
    """A finding about the device itself: a fault of its bus explains it."""
    return Finding(name, float(value), unit, limits, bench.part(role), (bench.bus(role), *needs), hint)


def through(
    bench: Bench,
    roles: Sequence[str],
    part: str,
    name: str,
    value: float,
    limits: Limits,
    unit: str = "",
    hint: str = "",
    needs: tuple[str, ...] = (),
) -> Finding:
    """A finding about a part that is seen through devices: they and their buses explain it."""
    devices = tuple(bench.part(r) for r in roles if bench.part(r) != part)
    buses = tuple(bench.bus(r) for r in roles)
    return Finding(name, float(value), unit, limits, part, (*devices, *buses, *needs), hint)


async def guarded(bench: Bench, role: str, name: str, work: Awaitable[Sequence[Finding]]) -> list[Finding]:
    """The findings of `work`; what a device raises in it becomes a failed finding of that device, or of `role`'s when
    the error does not tell whose it is."""
    try:
        return list(await work)
    except DriverError as error:
        return [of_device(bench, culprit(bench, str(error), role), f"{name}.answers", 0.0, YES, hint=str(error))]


def culprit(bench: Bench, error: str, default: str) -> str:
    """Role of the device that an error names, by its own name or by its address."""
    for role, found in bench.module.devices.items():
        address = bench.module.config.by_role(role).address
        where = parse_address(address)
        if isinstance(where, I2cAddress):
            named = error.startswith(f"i2c:{where.bus}: ") and f"(0x{where.device:02x})" in error
        else:
            named = error.startswith(f"{where}: ")
        if named or error.startswith(f"{found.name} at ") or error.startswith(f"{found.name}:"):
            return role
    return default
