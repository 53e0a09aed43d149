"""From the key engine's sums to the record of patterning, while keys are made."""

from __future__ import annotations

from dataclasses import dataclass

from calibration.context import CalibrationContext, CalibrationRefused
from calibration.procedures.patterning import PatternCounts, Patterning
from qmodd.events import EventLog
from qmodd.keys.patterning import PatternTally

# Detections behind one record: two parts in a thousand of the least certain of its four numbers.
WANTED = 1_000_000


@dataclass
class Patterns:
    """Sums until there are enough of them, then a record, then from nothing again."""

    wanted: int = WANTED
    tally: PatternTally | None = None

    def add(self, tally: PatternTally) -> None:
        """For the engine. Other probabilities begin anew."""
        same = self.tally is not None and self.tally.p == tally.p
        self.tally = self.tally + tally if self.tally is not None and same else tally

    async def store(self, context: CalibrationContext, events: EventLog) -> None:
        """A record, if there are enough; nothing is moved and no light is asked for.

        What the procedure refuses is an event: keys go on, by the intervals in force. Raises DriverError when the
        temperatures that belong to a record cannot be read.
        """
        tally = self.tally
        if tally is None or tally.total < self.wanted:
            return
        self.tally = None
        try:
            record = await Patterning().from_counts(context, PatternCounts(tally.counts, tally.before))
        except CalibrationRefused as e:
            events.record("patterning.refused", {"why": str(e)})
        else:
            context.store.append(record)
