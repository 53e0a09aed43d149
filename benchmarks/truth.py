"""What a calibration record ought to say: the true value of each of its parameters at this moment.

Only benchmarks and tests may compare a record with this: nothing that stands in for hardware reads it. Values are named
as the records name them; a name without a truth (a setting, a reading of the moment) is left out; a
name that is no record's (`delay_s` of `tec_plant`) is the truth of a sum of values. Conventions:

- `p_pi_w` is in true watts, the other heaters and the die's temperature held; for `arm_phase` the die follows.
- `phi0_rad` is the present phase less the heater's own part, in the sense that the procedure's equation gives it.
- Powers of set points (`power_w`, `bar_w`, ...) are in the watts that the records' R(P) believes in, the other heaters
  as they are: the power to ask for. Of several, the one nearest to the record's.
- Voltages of nulls and peaks have the creep and the wander of the moment in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.moment import Believe, Values
from benchmarks.truth_alice import ALICE, AliceMoment
from benchmarks.truth_bob import BOB, BobMoment
from calibration.record import Record
from sim.world import World


def truth_of(world: World, side: str, record: Record, believe: Believe = lambda _, watts: watts) -> Values:
    """True values of a record's names, by name. believe: watts that the drive must be told for true watts."""
    world.advance()
    finders: dict[str, Callable[[Any], Values]] = ALICE if side == "alice" else BOB
    if record.name not in finders:
        return {}
    module: Any = AliceMoment if side == "alice" else BobMoment
    found = finders[record.name](module(world, side, dict(record.value), believe))
    return {name: float(value) for name, value in found.items()}
