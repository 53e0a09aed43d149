"""What every calibration is: a name, what it rests on, how long it holds, how to redo, re-apply and check it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum, StrEnum
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from calibration.context import CalibrationContext, Progress
from calibration.plot import Figure
from calibration.record import Conditions, Record

Raw = Mapping[str, npt.NDArray[np.float64]]


class Disturbs(IntEnum):
    """What a calibration, or its check, takes away while it runs."""

    NOTHING = 0  # may run while keys are made
    KEYS = 1  # moves an output that keys rest on: keys stop, light and locks may stay
    LINK = 2  # needs the other module's light: both modules stop making keys


class Verdict(StrEnum):
    IN_SPEC = "in_spec"
    OUT_OF_SPEC = "out_of_spec"
    BAD_DATA = "bad_data"


@dataclass(frozen=True)
class CheckResult:
    """What a data check found (Kelly et al. 2018). In spec: the record describes the part. Out of spec: the part has
    moved, redo this one. Bad data: the readings fit no part of this kind, so look for the reason in what this rests on.
    `read` are the readings behind it, SI, units in the names."""

    verdict: Verdict
    why: str = ""
    read: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def in_spec(cls, read: Mapping[str, float] | None = None) -> CheckResult:
        return cls(Verdict.IN_SPEC, "", dict(read or {}))

    @classmethod
    def out_of_spec(cls, why: str, read: Mapping[str, float] | None = None) -> CheckResult:
        return cls(Verdict.OUT_OF_SPEC, why, dict(read or {}))

    @classmethod
    def bad_data(cls, why: str, read: Mapping[str, float] | None = None) -> CheckResult:
        return cls(Verdict.BAD_DATA, why, dict(read or {}))

    @property
    def good(self) -> bool:
        return self.verdict is Verdict.IN_SPEC


class Procedure(ABC):
    """One calibration. Stateless: everything is in the context and in the record."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    valid_s: ClassVar[float] = 7 * 86_400.0
    # Values that others read and that a record of an older version may lack: such a record is out.
    gives: ClassVar[tuple[str, ...]] = ()
    # What it costs to redo, and to check with `check`; seconds are simulated or real alike, measured on the emulator.
    disturbs: ClassVar[Disturbs] = Disturbs.KEYS
    check_disturbs: ClassVar[Disturbs] = Disturbs.NOTHING
    cost_s: ClassVar[float] = 1.0
    check_cost_s: ClassVar[float] = 0.2
    # Keys do not rest on it: a boot applies its record where there is a good one, but never makes it.
    deferred: ClassVar[bool] = False
    # Its record comes from what a loop counts while keys are made: no walk can make it, and none tries.
    by_service: ClassVar[bool] = False
    # A passed check has read enough to renew the validity of a record that is out by age or temperature alone.
    renews: ClassVar[bool] = False
    # A loop holds the value while the module is in service: there its age says nothing.
    held: ClassVar[bool] = False
    # Raised by one when the meaning of a value changes: records of another layout are out.
    layout: ClassVar[int] = 1
    # The model that is fitted, in plain text, for the report and the reference pages.
    equation: ClassVar[str] = ""

    @abstractmethod
    async def calibrate(self, context: CalibrationContext) -> Record:
        """Measure, fit, leave the outputs at the found set point.

        Raises FitRefused or CalibrationRefused with a reason, LightRefused, or a drivers.errors.DriverError.
        """

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        """Bring the outputs to the set point of a record that is still good. Nothing to do by default."""
        return None

    async def check(self, context: CalibrationContext, record: Record) -> CheckResult | str | None:
        """A few cheap readings against the record: None says nothing against it, a text that it is out of spec.

        At boot it comes after `apply`. With `check_disturbs` NOTHING it is asked in service, too, where it may only
        read: loops have moved outputs, and with `context.keying` the light is random symbols.
        """
        return None

    async def checked(self, context: CalibrationContext, record: Record) -> CheckResult:
        """`check` in one form. Raises what it raises."""
        found = await self.check(context, record)
        if isinstance(found, CheckResult):
            return found
        return CheckResult.in_spec() if found is None else CheckResult.out_of_spec(found)

    def figures(self, record: Record, raw: Raw) -> Sequence[Figure]:
        """What was read and what was fitted, for people; from a record and its raw readings alone."""
        return ()

    def report(self, context: CalibrationContext, fraction: float, message: str = "") -> None:
        context.progress(Progress(self.name, fraction, message))

    async def make_record(
        self,
        context: CalibrationContext,
        value: Mapping[str, float],
        raw: Mapping[str, Any],
        *,
        names: Sequence[str] = (),
        covariance: Sequence[Sequence[float]] = (),
        residual_rms: float = 0.0,
        residuals: Sequence[float] = (),
    ) -> Record:
        """A record with conditions, parents and times; `raw` are the readings, kept under their digest."""
        now = context.clock.utc()
        temperatures = await context.temperatures()
        parents = {n: active.version for n in self.needs if (active := context.store.active(n)) is not None}
        return Record(
            name=self.name,
            layout=self.layout,
            value={k: float(v) for k, v in value.items()},
            covariance_names=tuple(names),
            covariance=tuple(tuple(float(x) for x in row) for row in covariance),
            residual_rms=float(residual_rms),
            residuals=tuple(float(r) for r in residuals),
            raw_sha256=context.raw.put(raw),
            conditions=Conditions(
                temperatures_c=temperatures,
                operator=context.operator,
                firmware_sha256=context.firmware_sha256,
            ),
            parents=parents,
            created=now,
            valid_until=now + timedelta(seconds=self.valid_s),
            provenance=f"{context.side} {context.factory.serial} {self.name}",
        )
