"""Alice's symbol source: SCPI and binary blocks over VISA (reference pair B1)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pydantic import Field

from drivers.bus.pool import BusPool
from drivers.bus.visa import make_block
from drivers.errors import BusFault, Stale
from drivers.instruments.scpi import Scpi
from drivers.instruments.symbol_block import MAX_GAP, SymbolBlock, pack_slots, unpack_symbols
from drivers.options import DriverOptions
from drivers.quantity import Limits, Quantity
from drivers.roles import Identity, LightMode, Pilot

CHUNK = 1 << 20
"""Most slots in one request."""
NOT_VALID = 8
DRIVES = {"carver": "CARV", "state": "STAT", "decoy": "DEC"}


class SymbolSourceOptions(DriverOptions):
    carver_max_v: float = Field(default=12.0, gt=0)
    state_max_v: float = Field(default=12.0, gt=0)
    decoy_max_v: float = Field(default=12.0, gt=0)


class SymbolSource:
    """Role SymbolSource. Safe: mode OFF, run stopped, drives at 0 V."""

    Options = SymbolSourceOptions

    def __init__(self, name: str, address: str, buses: BusPool, options: SymbolSourceOptions) -> None:
        self.name = name
        self.address = address
        self.period_ps = 0.0
        self.bin_ps = 0.0
        self._clock = buses.clock
        self._scpi = Scpi(name, buses.visa(address, name))
        self._run = 0
        high = {"carver": options.carver_max_v, "state": options.state_max_v, "decoy": options.decoy_max_v}
        self._drives = {k: Quantity(f"{name}.{k}", Limits("V", 0.0, v, 0.0)) for k, v in high.items()}
        self._share = Quantity(f"{name}.probability", Limits("of 1", 0.0, 1.0, 0.0))

    async def open(self) -> Identity:
        """Raises WrongDevice, Refused, BusFault, Timeout."""
        identity = await self._scpi.identify("symbol_source", "QMODD", "SYMBOL-SOURCE")
        self.period_ps = await self.read_period_ps()
        self.bin_ps = (await self._scpi.query_numbers("SYMB:BIN?", 1))[0]
        await self.make_safe()
        return identity

    async def read_period_ps(self) -> float:
        """Length of a slot as the device says it now, ps. Raises Refused, BusFault, Timeout."""
        return (await self._scpi.query_numbers("SYMB:PER?", 1))[0]

    async def make_safe(self) -> None:
        await self._scpi.set("SYMB:MODE OFF")
        await self.stop()
        await self.set_rf(carver_v=0.0, state_v=0.0, decoy_v=0.0)

    async def close(self) -> None:
        await self._scpi.visa.close()

    async def known_answer(self) -> bool:
        """See the role Probed."""
        return await self._scpi.known_answer()

    async def errors(self) -> list[str]:
        """What the instrument's error queue holds; it is empty afterwards. Raises BusFault, Timeout."""
        return await self._scpi.errors()

    async def set_probabilities(self, p_x: float, p_decoy: float) -> tuple[float, float]:
        """Raises OutOfRange (nothing written), Refused while KEY runs, BusFault, Timeout."""
        self._share.check(p_x)
        self._share.check(p_decoy)
        basis = await self._scpi.set(f"SYMB:PROB:BAS {p_x!r}", verify="SYMB:PROB:BAS?")
        decoy = await self._scpi.set(f"SYMB:PROB:DEC {p_decoy!r}", verify="SYMB:PROB:DEC?")
        return self._near(basis, p_x, 1 / 65536), self._near(decoy, p_decoy, 1 / 65536)

    async def set_rf(
        self, *, carver_v: float | None = None, state_v: float | None = None, decoy_v: float | None = None
    ) -> None:
        """All limits are checked before the first is written. Raises OutOfRange, Refused, BusFault, Timeout."""
        wanted = {"carver": carver_v, "state": state_v, "decoy": decoy_v}
        now = self._clock()
        volts = {key: self._drives[key].admit(v, now) for key, v in wanted.items() if v is not None}
        for key, value in volts.items():
            command = f"OUTP:{DRIVES[key]}:AMPL"
            answer = await self._scpi.set(f"{command} {value!r}", verify=f"{command}?")
            self._drives[key].wrote(self._near(answer, value, 1e-3), now)

    async def set_randomiser(self, on: bool) -> float:
        state = await self._scpi.set(f"OUTP:RAND {'ON' if on else 'OFF'}", verify="OUTP:RAND?")
        if state.upper() not in (("ON", "1") if on else ("OFF", "0")):
            raise BusFault(f"{self.name} at {self.address}: the randomiser says {state!r}")
        return (await self._scpi.query_numbers("OUTP:RAND:RMS?", 1))[0]

    async def run(self) -> int:
        await self._scpi.set("SYMB:RUN")
        run, _ = await self.now()
        if run == 0:
            raise BusFault(f"{self.name} at {self.address}: did not start")
        return run

    async def stop(self) -> None:
        await self._scpi.set("SYMB:STOP")
        self._run = 0

    async def now(self) -> tuple[int, int]:
        run, slot = await self._scpi.query_integers("SYMB:RUN?", 2)
        self._run = run
        return run, slot

    async def set_mode(self, mode: LightMode, state: int = 0, intensity: int = 0, at_slot: int | None = None) -> None:
        """Raises Refused (-222: less than 0.2 s ahead), BusFault, Timeout; ValueError for a state outside 0 to 3 or an
        intensity outside 0, 1."""
        if state not in range(4) or intensity not in (0, 1):
            raise ValueError(f"state {state} must be 0 to 3 and intensity {intensity} 0 or 1")
        words = f"FIX,{state},{intensity}" if mode is LightMode.FIX else mode.name
        await self._scpi.set(f"SYMB:MODE {words}" if at_slot is None else f"SYMB:MODE:AT {at_slot},{words}")

    async def mode(self) -> str:
        """As the device says it, e.g. `KEY` or `FIX,2,0`."""
        return await self._scpi.query("SYMB:MODE?")

    async def memory(self) -> tuple[int, int]:
        """(first slot whose symbol is kept, end slot)."""
        first, end = await self._scpi.query_integers("SYMB:MEM?", 2)
        return first, end

    async def read_symbols(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """See the role. Raises Stale if the run has changed, BusFault (CRC), Timeout; the slots are then used up."""
        slots = np.ascontiguousarray(slots, np.int64)
        # A new request after each CHUNK slots and before each gap that 32 bits cannot say.
        cuts = set(range(0, len(slots), CHUNK)) | set((np.flatnonzero(np.diff(slots) > MAX_GAP) + 1).tolist())
        bounds = [*sorted(cuts), len(slots)]
        parts = [await self._read_part(slots[a:b]) for a, b in pairwise(bounds) if b > a]
        return np.concatenate(parts) if parts else np.empty(0, np.uint8)

    async def read_range(self, first: int, count: int) -> npt.NDArray[np.uint8]:
        """Nibbles of consecutive slots, count at most 2^20; Refused (-221) for slots sent as KEY."""
        data = await self._scpi.query_block(f"SYMB:RANG? {first},{count}".encode())
        return self._checked(unpack_symbols(data, self.name), first, count)

    async def free(self, before_slot: int) -> None:
        await self._scpi.set(f"SYMB:FREE {before_slot}")

    async def pilot(self) -> Pilot | None:
        """Raises BusFault for an answer that is no pilot, Refused, Timeout."""
        every, gain_db = await self._scpi.query_numbers("SYMB:PIL?", 2)
        if not every:
            return None
        if every != int(every) or every < 2 or not 0.0 <= gain_db <= 40.0:
            raise BusFault(f"{self.name} at {self._scpi.visa.address}: a pilot every {every:g} slots, {gain_db:g} dB")
        return Pilot(int(every), 10.0 ** (gain_db / 10.0))

    async def questionable(self) -> int:
        return (await self._scpi.query_integers("STAT:QUES?", 1))[0]

    async def _read_part(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        data = await self._scpi.query_block(b"SYMB:READ? " + make_block(pack_slots(slots)), deadline_s=4.0)
        return self._checked(unpack_symbols(data, self.name), int(slots[0]), len(slots))

    def _checked(self, block: SymbolBlock, first: int, count: int) -> npt.NDArray[np.uint8]:
        if (block.first, len(block.nibbles)) != (first, count):
            raise BusFault(
                f"{self.name} at {self.address}: asked for {count} slots from {first}, "
                f"got {len(block.nibbles)} from {block.first}"
            )
        if self._run and block.run != self._run:
            raise Stale(f"{self.name} at {self.address}: symbols of run {block.run}, not of run {self._run}")
        return block.nibbles

    def _near(self, answer: str, wanted: float, tolerance: float) -> float:
        try:
            value = float(answer)
        except ValueError:
            raise BusFault(f"{self.name} at {self.address}: expected a number, got {answer!r}") from None
        if abs(value - wanted) > tolerance * max(1.0, abs(wanted)):
            raise BusFault(f"{self.name} at {self.address}: holds {value:g} after {wanted:g} was set")
        return value
