"""What an engine is told once, and what it tells: settings, status, what a plan provider answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from drivers.roles import LightMode
from qmodd.keys.allocation import Pair
from qmodd.keys.counts import BatchReport, BlockCounts
from qmodd.keys.estimation import KeyLength, Proof
from qmodd.keys.frames import FrameCounters
from qmodd.keys.pool import ROUND_BYTES
from qmodd.keys.reconciliation import Setting
from qmodd.keys.records import BlockRecord

Scalar = str | int | float | bool | None
OnBatch = Callable[[BatchReport], None]
OnBlock = Callable[[BlockRecord], None]
OnEvent = Callable[[str, dict[str, Scalar]], None]


class LengthPolicy(StrEnum):
    """Whether a block's length follows from its own counts, or is agreed before it and paid or not."""

    VARIABLE = "variable"
    FIXED = "fixed"


@dataclass(frozen=True)
class EngineSettings:
    """One link's key engine; both modules must agree on what PLAN carries.

    `gate` is the tagger's strobe (open, period) in ps, (0, 0) for none; `delays_ps` (DZ, DX0, DX1) are used when SYNC
    light is too weak to tell them. `replenish_bytes` of every block go back into the pool.
    """

    serial: str
    link_id: str
    peer_serial: str = ""
    proof: Proof = Proof.WIESEMANN2024
    eps_sec: float = 1e-9
    eps_cor: float = 1e-15
    n_z: int = 1_000_000
    key_bits: int = 256
    # Pairs of recipients; without any, keys of `key_bits` are dealt to the key store's recipients in turn.
    pairs: tuple[Pair, ...] = ()
    batch_s: float = 0.1
    sync_s: float = 0.3
    lead_s: float = 0.35
    gate: tuple[int, int] = (0, 0)
    half_gate_ps: float = 200.0
    # Alice's decides.
    reconciliation: Setting = Setting.AUTO
    # What a block's own counts give, or a length that was agreed before it, a share `fixed_margin` below what the
    # blocks before it would have given.
    length: LengthPolicy = LengthPolicy.VARIABLE
    fixed_margin: float = 0.05
    holdoff: int = 6
    delays_ps: tuple[float, float, float] = (0.0, 0.0, 0.0)
    replenish_bytes: int = 192
    lifetime_s: float = 86_400.0
    qber_limit: float = 0.08
    blocks_in_flight: int = 4
    queue_batches: int = 20
    store_limit: int = 1_000_000
    retry_s: float = 2.0
    note_s: float = 1.0
    silence_s: float = 10.0

    def __post_init__(self) -> None:
        if self.replenish_bytes < ROUND_BYTES:
            raise ValueError(f"replenish_bytes {self.replenish_bytes}: a block uses {ROUND_BYTES} bytes of the pool")
        if not 0.0 <= self.fixed_margin < 1.0:
            raise ValueError(f"fixed_margin {self.fixed_margin} must lie in [0, 1)")
        if self.key_bits % 8 or self.key_bits <= 0:
            raise ValueError(f"key_bits {self.key_bits} must be a multiple of 8")


@dataclass(frozen=True)
class PlanFacts:
    """What Alice fixes before a block: calibrated intervals of the mean photon numbers (signal, decoy), probabilities
    of the intensities, probability of X, version of the calibration behind them."""

    mu: tuple[tuple[float, float], ...]
    p_mu: tuple[float, ...]
    p_x: float
    calibration: str


PlanProvider = Callable[[], Awaitable[PlanFacts]]


class LightServer(Protocol):
    """Alice's calibration light, asked for by Bob. Raises drivers.errors.Refused with the reason."""

    async def __call__(self, mode: LightMode, state: int, intensity: int, scale: float) -> None: ...


class LengthRule(Protocol):
    """Key length of a block; `estimation.key_length_interval` outside of tests."""

    def __call__(
        self,
        proof: Proof,
        counts: BlockCounts,
        mu_intervals: Sequence[tuple[float, float]],
        p_mu: Sequence[float],
        eps_sec: float,
        eps_cor: float,
        leak_bits: int,
    ) -> KeyLength: ...


class Phase(StrEnum):
    """What an engine is doing."""

    OFFLINE = "offline"
    HANDSHAKE = "handshake"
    IDLE = "idle"
    WAITING = "waiting"
    SYNCING = "syncing"
    KEYING = "keying"


@dataclass
class EngineStatus:
    """For display and telemetry; `why` explains `phase`. Rates are those of the last batch and block, per second."""

    phase: Phase = Phase.OFFLINE
    why: str = "not started"
    wanted: bool = False
    peer_state: str = ""
    peer_why: str = ""
    peer_ready: bool = False
    run: int = 0
    block: int = 0
    block_progress: float = 0.0
    blocks_in_flight: int = 0
    blocks_committed: int = 0
    blocks_aborted: int = 0
    last_abort: str = ""
    batches: int = 0
    batches_dropped: int = 0
    sifted_bps: float = 0.0
    # Receiver: batches of which slots could be counted, and clicks within the gates a counted slot of the last of them.
    counted: int = 0
    counted_slots: int = 0
    clicks_per_slot: float = 0.0
    # What the rule met in the newest batch, and how many slots that was.
    light: FrameCounters | None = None
    light_slots: int = 0
    secret_bps: float = 0.0
    qber_z: float = 0.0
    qber_x: float = 0.0
    efficiency: float = 0.0
    pool_rounds: int = 0
    pool_low: bool = False
    clock_residual_ps: float = 0.0
    clock_y: float = 0.0
