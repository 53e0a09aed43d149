"""Whole engine pairs in simulated time: photons to equal keys, through cuts, attacks on the channel, and stops."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from math import log2
from pathlib import Path
from typing import Any

import pytest

from drivers.errors import BusFault, Refused
from drivers.roles import LightMode
from qmodd.keys.counts import BlockCounts
from qmodd.keys.estimation import Proof, key_length_interval
from qmodd.keys.settings import Phase, PlanFacts
from tests.keys.engine.playing import blocks, play
from tests.keys.engine.wire import Wire
from tests.keys.engine.world import (
    FACTS,
    SETTINGS,
    Link,
    Pair,
    same_keys,
    until,
)


def test_photons_become_equal_keys(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await blocks(2)(pair)
        assert same_keys(pair.a, pair.b) > 100

    pair = play(ram_path, script)
    ours, theirs = pair.a.records[0], pair.b.records[0]
    assert ours.shared() == theirs.shared()
    assert sum(ours.n_z) == SETTINGS.n_z
    counts = BlockCounts(ours.n_z, ours.m_z, ours.n_x, ours.m_x)
    bound = key_length_interval(Proof.WIESEMANN2024, counts, FACTS.mu, FACTS.p_mu, 1e-2, 1e-15, ours.leak_bits)
    assert ours.length_bits == bound.length_bits
    assert ours.keys * 128 + ours.replenish_bits + ours.dropped_bits == ours.length_bits
    assert 0 <= ours.dropped_bits < 128
    assert ours.qber_z == pytest.approx(0.005, rel=0.3)
    assert 0 < ours.eps_auth < 1e-20
    assert pair.alice.status.efficiency > 1.0
    assert pair.bob.status.clock_y == pytest.approx(1e-6, abs=2e-8)
    # Alice's source was asked for detected slots only, and frees the rest as batches pass.
    assert pair.source.freed > pair.link.start_slot
    assert sum(r.n_z[0] for r in pair.a.batches) == sum(r.n_z[0] for r in pair.b.batches) > 0


def test_nothing_on_the_wire_tells_a_time_or_a_key_bit(ram_path: Path) -> None:
    secrets: list[bytes] = []

    async def script(pair: Pair) -> None:
        await blocks(1)(pair)
        secrets.extend([*pair.a.keys().values(), *pair.b.keys().values(), bytes(pair.a.pool.secret)])

    pair = play(ram_path, script)
    secrets += [(m.directory / "kek.key").read_bytes() for m in (pair.a, pair.b)]
    said = b"".join(frame for _, frame in pair.wire.record)
    shown = repr((pair.a.events, pair.b.events, pair.a.records, pair.a.store, pair.a.pool, pair.a.desk))
    assert len(secrets) > 100
    for secret in secrets:
        assert secret not in said
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown


def test_plan_that_arrives_late_still_synchronises(ram_path: Path) -> None:
    class Slow(Wire):
        def wake(self) -> None:
            asyncio.get_running_loop().call_later(0.25, super().wake)

    pair = play(ram_path, blocks(1), wire=Slow())
    assert pair.a.records


def test_strobe(ram_path: Path) -> None:
    settings = replace(SETTINGS, gate=(400_000_000, 1_000_000_000), n_z=65_536)
    pair = play(ram_path, blocks(1), settings)
    assert sum(pair.a.records[0].n_z) == 65_536
    assert pair.tags.gate == (0, 0)
    first = pair.b.batches[3]
    assert first.live_slots < 0.42 * (first.end_slot - first.first_slot)


def test_light_is_served_between_runs_only(ram_path: Path) -> None:
    asked: list[Any] = []

    async def light(mode: LightMode, state: int, intensity: int, scale: float) -> None:
        asked.append((mode, state, intensity, scale))
        if scale > 10:
            raise Refused("VOA at its limit")

    async def script(pair: Pair) -> None:
        await blocks(1)(pair)
        with pytest.raises(Refused, match="keys are being made"):
            await pair.bob.request_light(LightMode.FIX, 2, 1, 3.0)
        await pair.bob.stop_keying("the phase lock asks")
        await until(lambda: pair.alice.status.phase is Phase.WAITING)
        assert "the phase lock asks" in pair.alice.status.why
        await pair.bob.request_light(LightMode.FIX, 2, 1, 3.0)
        assert asked == [(LightMode.FIX, 2, 1, 3.0)]
        with pytest.raises(Refused, match="VOA at its limit"):
            await pair.bob.request_light(LightMode.FIX, 2, 1, 30.0)
        with pytest.raises(Refused, match="not served"):
            await pair.bob.request_light(LightMode.KEY)
        with pytest.raises(Refused, match="no such state"):
            await pair.bob.request_light(LightMode.FIX, 7)
        before = len(pair.a.records)
        await pair.bob.start_keying()
        await until(lambda: len(pair.a.records) > before)
        pair.wire.cut()
        with pytest.raises(Refused, match="no light"):
            await pair.bob.request_light(LightMode.OFF)
        pair.wire.mend()

    play(ram_path, script, light=light)


def test_light_that_is_under_way_in_a_cut_is_refused(ram_path: Path) -> None:
    async def light(mode: LightMode, state: int, intensity: int, scale: float) -> None:
        await asyncio.sleep(5)

    async def script(pair: Pair) -> None:
        await pair.alice.stop_keying("calibration")
        asyncio.get_running_loop().call_later(1.0, pair.wire.cut)
        asyncio.get_running_loop().call_later(2.0, pair.wire.mend)
        await until(lambda: pair.alice._welcome is not None)
        with pytest.raises(Refused, match="cut"):
            await pair.bob.request_light(LightMode.FIX)

    play(ram_path, script, light=light)


def test_cuts_at_random_moments(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        rng = random.Random(4)
        for _ in range(6):
            await asyncio.sleep(rng.uniform(0.3, 2.5))
            pair.wire.cut()
            await asyncio.sleep(0.2)
            assert pair.alice.status.phase is Phase.OFFLINE
            assert "cut" in pair.b.said("session.lost")[-1]["why"]
            pair.wire.mend()
        n = len(pair.a.records)
        await until(lambda: len(pair.a.records) > n)

    play(ram_path, script)


def test_frame_slip_is_noticed_and_resynchronised(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await blocks(1)(pair)
        pair.tags.slip = 8000  # Bob's slots are off by one: every bit is random, gates fit
        await until(lambda: bool(pair.b.said("frame.lost")))
        assert "numbered wrongly" in pair.b.said("frame.lost")[0]["why"]
        n = len(pair.a.records)
        await until(lambda: len(pair.a.records) > n)
        pair.tags.slip += 3000  # out of the gates
        await until(lambda: len(pair.b.said("frame.lost")) > 1)
        assert "fall into the gates" in pair.b.said("frame.lost")[1]["why"]

    play(ram_path, script)


def test_no_light_no_synchronisation_and_a_reason(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await until(lambda: pair.alice.status.phase is Phase.WAITING and "no synchronisation" in pair.alice.status.why)
        pair.link.fibre_cut = False
        await blocks(1)(pair)

    play(ram_path, script, link=Link(fibre_cut=True))


def test_too_many_errors_give_no_key_and_say_so(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await until(lambda: pair.bob.status.blocks_aborted > 0)
        assert "above the limit" in pair.alice.status.last_abort
        assert pair.alice.status.last_abort == pair.bob.status.last_abort
        assert not pair.a.records

    play(ram_path, script, link=Link(errors=0.10))


def test_flagged_intervals_stay_out_of_the_key(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await until(lambda: pair.alice.status.phase is Phase.KEYING)
        await asyncio.sleep(0.35)
        for engine, batches in ((pair.alice, pair.a.batches), (pair.bob, pair.b.batches)):
            engine.flag_interval("bias", since_s=0.01)
            assert engine.flags.active == ("bias",)
            await asyncio.sleep(0.4)
            engine.clear_flag("bias")
            assert sum(batches[-1].n_z) == 0
            await asyncio.sleep(0.4)
            assert sum(batches[-1].n_z) > 1000
        await blocks(1)(pair)

    play(ram_path, script)


def test_intensities_change_for_blocks_that_have_not_begun(ram_path: Path) -> None:
    facts = [FACTS]

    async def plan() -> PlanFacts:
        return facts[0]

    async def script(pair: Pair) -> None:
        await until(lambda: pair.alice.status.phase is Phase.KEYING)
        facts[0] = replace(FACTS, mu=((0.52, 0.54), (0.17, 0.19)), calibration="mean_photon:2")
        await blocks(4)(pair)
        assert [r.mu == FACTS.mu for r in pair.a.records[:4]] == [r.block < 2 for r in pair.a.records[:4]]
        assert [r.mu for r in pair.a.records[:4]] == [r.mu for r in pair.b.records[:4]]
        facts[0] = replace(facts[0], p_x=0.4)
        await until(lambda: any("probabilities" in e["why"] for e in pair.a.said("run.ended")))

    play(ram_path, script, plan=plan)


@pytest.mark.parametrize(
    ("field", "value"), [("n_z", 70_000), ("eps_sec", 1e-3), ("key_bits", 256), ("replenish_bytes", 320)]
)
def test_modules_with_different_settings_make_no_keys(ram_path: Path, field: str, value: float) -> None:
    async def script(pair: Pair) -> None:
        pair.bob.settings = replace(pair.bob.settings, **{field: value})
        told = f"settings differ: {field}" if field != "key_bits" else "recipient pair 1 (kms at this site): key_bits"
        await until(lambda: told in pair.alice.status.why or told in pair.alice.status.peer_why)
        assert not pair.a.records
        pair.bob.settings = pair.b.settings

    play(ram_path, script)


def test_device_faults_end_a_run_and_not_the_engine(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await blocks(1)(pair)
        for device, name in ((pair.tags, "read"), (pair.source, "read_symbols"), (pair.source, "set_mode")):
            real = getattr(device, name)

            async def broken(*_: Any, **__: Any) -> Any:
                raise BusFault("visa: no answer")

            setattr(device, name, broken)
            if name == "set_mode":  # asked for when a run begins only
                await pair.alice.stop_keying("pause")
                await pair.alice.start_keying()
            await until(lambda: "no answer" in pair.alice.status.why, 20)
            setattr(device, name, real)
            n = len(pair.a.records)
            await until(lambda n=n: len(pair.a.records) > n)  # type: ignore[misc]

    play(ram_path, script)


def test_back_pressure_drops_tags_and_counts_them(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        pair.bob.settings = replace(pair.bob.settings, queue_batches=5)
        kernels: Any = pair.b.desk.kernels
        real = kernels.amplify

        async def slow(*args: Any) -> Any:
            await asyncio.sleep(6)
            return await real(*args)

        kernels.amplify = slow
        await until(lambda: pair.bob.status.batches_dropped > 0)
        assert pair.bob.status.blocks_in_flight == pair.b.settings.blocks_in_flight
        assert "blocks wait to be distilled" in pair.b.said("tags.dropped")[0]["why"]
        kernels.amplify = real
        await blocks(4)(pair)

    play(ram_path, script)


def test_a_full_store_and_an_empty_pool_refuse_with_a_reason(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await until(lambda: "keys wait for delivery" in pair.alice.status.why)
        made = len(pair.a.records)
        pair.a.store.mark_delivered(list(pair.a.keys()))
        pair.b.store.mark_delivered(list(pair.b.keys()))
        await until(lambda: len(pair.a.records) > made)
        pair.a.store.mark_delivered(list(pair.a.keys()))
        pair.b.store.mark_delivered(list(pair.b.keys()))
        for m in (pair.a, pair.b):
            m.pool._use(m.pool.written // 160 - 2)
        await until(lambda: "re-key the pair" in (pair.alice.status.why + pair.alice.status.last_abort))
        await until(lambda: bool(pair.a.said("pool.low")))

    play(ram_path, script, replace(SETTINGS, store_limit=100))


def test_silence_ends_a_session(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await blocks(1)(pair)
        pair.wire.tamper = lambda d, n, frame: [] if d == 0 else [frame]
        await until(lambda: any("silent" in e["why"] for e in pair.b.said("session.lost")))
        pair.wire.tamper = lambda d, n, frame: [frame]
        n = len(pair.a.records)
        await until(lambda: len(pair.a.records) > n)

    play(ram_path, script)


def test_notes_show_the_far_module(ram_path: Path) -> None:
    async def script(pair: Pair) -> None:
        await pair.bob.note("locking", "phase is being found")
        await until(lambda: pair.alice.status.peer_state == "locking")

    play(ram_path, script)


def test_eps_of_a_run_is_what_was_set() -> None:
    assert log2(1 / SETTINGS.eps_cor) < 128
    with pytest.raises(ValueError, match="replenish_bytes"):
        replace(SETTINGS, replenish_bytes=8)
    with pytest.raises(ValueError, match="multiple of 8"):
        replace(SETTINGS, key_bits=100)
