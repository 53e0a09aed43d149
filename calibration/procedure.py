"""What every calibration is: a name, what it rests on, how long it holds, how to redo, re-apply and check it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from calibration.context import CalibrationContext, Progress
from calibration.record import Conditions, Record, digest


class Procedure(ABC):
    """One calibration. Stateless: everything is in the context and in the record."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    valid_s: ClassVar[float] = 7 * 86_400.0
    # Values that others read and that a record of an older version may lack: such a record is out.
    gives: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    async def calibrate(self, context: CalibrationContext) -> Record:
        """Measure, fit, leave the outputs at the found set point.

        Raises FitRefused or CalibrationRefused with a reason, LightRefused, or a drivers.errors.DriverError.
        """

    async def apply(self, context: CalibrationContext, record: Record) -> None:
        """Bring the outputs to the set point of a record that is still good. Nothing to do by default."""
        return None

    async def check(self, context: CalibrationContext, record: Record) -> str | None:
        """A few cheap readings against the record, after `apply`: None, or why it is out."""
        return None

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
    ) -> Record:
        """A record with conditions, parents and times; `raw` are the readings, for the digest."""
        now = context.clock.utc()
        parents = {n: active.version for n in self.needs if (active := context.store.active(n)) is not None}
        return Record(
            name=self.name,
            value={k: float(v) for k, v in value.items()},
            covariance_names=tuple(names),
            covariance=tuple(tuple(float(x) for x in row) for row in covariance),
            residual_rms=float(residual_rms),
            raw_sha256=digest(raw),
            conditions=Conditions(
                temperatures_c={"submount": await context.submount.read_celsius()}, operator=context.operator
            ),
            parents=parents,
            created=now,
            valid_until=now + timedelta(seconds=self.valid_s),
            provenance=f"{context.side} {context.factory.serial} {self.name}",
        )
