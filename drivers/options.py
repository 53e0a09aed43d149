"""What all drivers have in common: how their options behave, and how they say that another device answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from drivers.errors import BusFault, DriverError, Refused, Timeout, WrongDevice

T = TypeVar("T")


class DriverOptions(BaseModel):
    """Base of a driver's options: unknown fields are refused, values do not change after start."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def wrong_device(name: str, address: str, expected: str, found: str) -> WrongDevice:
    """The error of a failed identity check, in the words that every driver uses."""
    return WrongDevice(f"{name} at {address}: expected {expected}, found {found}")


async def identify(name: str, address: str, expected: str, ask: Awaitable[T]) -> T:
    """Await an identity query; no answer, or a refusal, becomes WrongDevice. Lets everything else through."""
    try:
        return await ask
    except (BusFault, Timeout, Refused) as error:
        raise wrong_device(name, address, expected, f"nothing usable ({error})") from error


async def each(items: Iterable[str], do: Callable[[str], Awaitable[None]]) -> None:
    """Do something for every item even if some fail (making outputs safe); then raise the first error."""
    first: DriverError | None = None
    for item in items:
        try:
            await do(item)
        except DriverError as error:
            first = first or error
    if first is not None:
        raise first
