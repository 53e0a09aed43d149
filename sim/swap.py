"""A module's bay in the rack: pull the module out of a running world, put the same or another individual in.

Pulled, all of its parts are off their buses and without supply: no light, no heat, no bias. Another individual comes
with its own parts, serial numbers, EEPROM and temperature, as its own factory made it; one that has been in before
comes back as it was pulled. World, server and transports go on: the endpoints are sockets, behind which the parts
change.

Scripted, on `alice.module` or `bob.module`: `unplug` (out for as long as the fault lasts, then the same one again) and
`swap` (value: seed of the individual that comes instead; `for`: seconds without any before, at once without it).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sim.faults import Fault
from sim.fru_image import fru_image

if TYPE_CHECKING:
    from sim.physics.alice import Alice
    from sim.physics.bob import Bob
    from sim.rig import Rig
    from sim.world import World

Key = tuple[str, Any]


class Bay:
    """`seed` names the individual that is in or was pulled last; `inserted` says whether one is in."""

    def __init__(self, world: World, rig: Rig) -> None:
        self._world = world
        self._rig = rig
        self.seed = world.scenario.seed
        self.inserted = True
        self._shelf: dict[int, tuple[Alice | Bob, dict[str, Any], dict[Key, dict[str, Any]]]] = {}
        self._pulled: list[str] = []
        self._out_by_script = False
        self._swapping: Fault | None = None
        self._swapped: Fault | None = None

    @property
    def serial(self) -> str:
        """Of the module that is in or was pulled last (truth)."""
        return self._rig.port.serial

    def pull(self) -> None:
        """Out of the bay, with all of its parts."""
        if not self.inserted:
            return
        self.inserted = False
        self._pulled = [name for name in self._rig if self._rig.present(name)]
        for name in self._pulled:
            self._rig.unplug(name)
        self._world.before_change()

    def insert(self, seed: int | None = None) -> None:
        """The one that was pulled, or the individual of another seed; with one in the bay, that is pulled first."""
        self.pull()
        if seed is not None and seed != self.seed:
            self._exchange(seed)
        else:
            for name in self._pulled:
                self._rig.replug(name)
        self.inserted = True
        self._world.before_change()

    def follow(self, now: float) -> None:
        """Do what the script says of the bay."""
        faults, target = self._world.faults, f"{self._rig.name}.module"
        swap = faults.active("swap", target, now)
        if self._swapping is not None and swap is not self._swapping:
            self._end_swap(self._swapping)
        if swap is not None and swap not in (self._swapping, self._swapped):
            self.pull()
            self._swapping = swap
            if swap.duration == float("inf"):
                self._end_swap(swap)
        absent = faults.active("unplug", target, now) is not None
        if absent != self._out_by_script:
            self._out_by_script = absent
            (self.pull if absent else self.insert)()

    def _end_swap(self, swap: Fault) -> None:
        self._swapping, self._swapped = None, swap
        self.insert(int(swap.number(self.seed + 1)))

    def _exchange(self, seed: int) -> None:
        """The pulled module to the shelf; the other one from there, or from its factory."""
        world, rig = self._world, self._rig
        module: Alice | Bob = world.alice if rig.name == "alice" else world.bob
        self._shelf[self.seed] = (module, rig.__dict__, {key: dict(e.__dict__) for key, e in _endpoints(rig)})
        if seed in self._shelf:
            fresh, parts, behind = self._shelf.pop(seed)
            world.place(fresh)
        else:
            fresh = world.make(rig.name, seed)
            made = self._build(fresh, seed)
            parts, behind = made.__dict__, {key: dict(e.__dict__) for key, e in _endpoints(made)}
        sockets = dict(_endpoints(rig))
        for key, inside in behind.items():
            sockets[key].__dict__ = inside
        # The sockets are those that servers and libraries hold; the bay and its clockwork are the rack's.
        stall_s = rig.watchdog.stall_s
        parts.update(i2c=rig.i2c, spi=rig.spi, serial=rig.serial, scpi=rig.scpi, tcp=rig.tcp, bay=self)
        rig.__dict__ = parts
        rig.watchdog.stall_s = stall_s
        self.seed = seed
        for name in rig:
            rig.replug(name)

    def _build(self, module: Alice | Bob, seed: int) -> Rig:
        return type(self._rig)(
            module,
            clock=self._rig.clock,
            factory_analog=module.individual.monitors,
            faults=self._world.faults,
            seed=seed,
            reading_noise=self._world.scenario.modules.reading_noise,
            eeprom=fru_image(module.individual, seed),
        )


def _endpoints(rig: Rig) -> Iterator[tuple[Key, Any]]:
    """Every bus, chip select, line and port of a rig."""
    for kind in ("i2c", "spi", "serial", "scpi", "tcp"):
        for name, endpoint in getattr(rig, kind).items():
            yield (kind, name), endpoint
