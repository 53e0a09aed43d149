"""What Alice fixes before a run: the PLAN, and the thresholds of a fixed length."""

from __future__ import annotations

from qmodd.keys.estimation import FixedLength, KeyLength
from qmodd.keys.protocol import Plan
from qmodd.keys.settings import EngineSettings, LengthPolicy, PlanFacts


def thresholds(s: EngineSettings, observed: KeyLength | None) -> tuple[float, ...]:
    """`agreed` of a PLAN: a margin below what a block before it would have paid for; nothing where the length is
    variable, where no block has been seen, or where that pays for no key."""
    if s.length is LengthPolicy.VARIABLE or observed is None:
        return ()
    try:
        fixed = FixedLength.of(observed, s.proof, s.eps_sec, s.eps_cor, s.fixed_margin)
    except ValueError:
        return ()
    if fixed.length_bits < s.key_bits + 8 * s.replenish_bytes:
        return ()
    return (fixed.s_z0, fixed.s_z1, fixed.phi_z, float(fixed.leak_bits))


def make_plan(
    s: EngineSettings,
    facts: PlanFacts,
    run: int,
    source_run: int,
    sync: int,
    key: int,
    slot: int,
    period_ps: float,
    bin_ps: float,
    pilot_every: int,
    module: str,
    agreed: tuple[float, ...] = (),
) -> Plan:
    """What is fixed before a run; slots are the source's."""
    return Plan(
        run=run,
        source_run=source_run,
        sync_slot=sync,
        key_slot=key,
        slot_now=slot,
        period_ps=period_ps,
        bin_ps=bin_ps,
        mu=facts.mu,
        p_mu=facts.p_mu,
        p_x=facts.p_x,
        proof=s.proof.value,
        eps_sec=s.eps_sec,
        eps_cor=s.eps_cor,
        n_z=s.n_z,
        key_bits=s.key_bits,
        replenish_bytes=s.replenish_bytes,
        half_gate_ps=s.half_gate_ps,
        holdoff=s.holdoff,
        pilot_every=pilot_every,
        calibration=facts.calibration,
        module=module,
        agreed=agreed,
    )
