from __future__ import annotations

from sim.busfaults import NO_EFFECT, REMEMBERED, BusFaults, Effect
from sim.clock import ManualClock
from sim.faults import Fault, FaultSchedule
from sim.instruments.stream import Replies


def make(*faults: Fault) -> tuple[ManualClock, BusFaults]:
    clock = ManualClock()
    return clock, BusFaults(clock, "alice", FaultSchedule(faults, seed=3), seed=3)


def test_quiet_without_a_script() -> None:
    clock = ManualClock()
    faults = BusFaults(clock, "alice")
    assert faults.quiet
    assert faults.strike("i2c1") is NO_EFFECT
    assert not faults.active("hang", "i2c1")


def test_faults_hold_at_t_for_d_on_x() -> None:
    clock, faults = make(Fault(5.0, "nack", "alice.tmp117", 2.0), Fault(0.0, "crc", "bob.tmp117"))
    assert "nack" not in faults.strike("i2c1", "tmp117")
    clock.t = 5.0
    assert "nack" in faults.strike("i2c1", "tmp117")
    assert "crc" not in faults.strike("tmp117")
    assert "nack" not in faults.strike("i2c1", "ina228")
    clock.t = 7.0
    assert faults.strike("i2c1", "tmp117") is NO_EFFECT


def test_lateness_takes_its_value_or_half_a_second() -> None:
    _, faults = make(Fault(0.0, "late", "alice.tec", value=1.5), Fault(0.0, "late", "alice.laser"))
    assert faults.strike("tec").late_s == 1.5
    assert faults.strike("laser").late_s == 0.5
    assert faults.strike("tec", "laser").late_s == 1.5


def test_chance_is_repeatable() -> None:
    runs = []
    for _ in range(2):
        _, faults = make(Fault(0.0, "nack", "alice.i2c1", probability=0.3))
        runs.append(["nack" in faults.strike("i2c1") for _ in range(200)])
    assert runs[0] == runs[1]
    assert 30 < sum(runs[0]) < 90


def test_stale_answers_are_those_to_the_same_request() -> None:
    clock, faults = make(Fault(5.0, "stale", "alice.adc", 5.0))
    assert faults.answer(faults.strike("adc"), "adc", b"a", b"1") == b"1"
    assert faults.answer(faults.strike("adc"), "adc", b"b", b"2") == b"2"
    clock.t = 5.0
    stale = faults.strike("adc")
    assert faults.answer(stale, "adc", b"a", b"3") == b"1"
    assert faults.answer(stale, "adc", b"b", b"4") == b"2"
    assert faults.answer(stale, "adc", b"never asked", b"5") == b"5"
    assert faults.answer(stale, "adc", b"never asked", b"6") == b"5"
    clock.t = 10.0
    assert faults.answer(faults.strike("adc"), "adc", b"a", b"7") == b"7"
    for n in range(2 * REMEMBERED):
        faults.answer(NO_EFFECT, "adc", b"%d" % n, b"x")
    assert faults.answer(stale, "adc", b"a", b"8") == b"8"


def test_garbling() -> None:
    _, faults = make()
    data = bytes(range(32))
    assert faults.garble(NO_EFFECT, data) == data
    spoilt = faults.garble(Effect(frozenset(["crc"])), data)
    assert sum((a ^ b).bit_count() for a, b in zip(data, spoilt, strict=True)) == 1
    assert faults.garble(Effect(frozenset(["crc"])), b"") == b""
    assert len(faults.garble(Effect(frozenset(["garbage"])), data)) == 32


def test_replies_keep_their_order() -> None:
    clock = ManualClock()
    replies = Replies(clock)
    replies.put(b"slow", 1.0)
    replies.put(b"fast")
    assert replies.take() == b""
    assert replies.due == 1.0
    assert replies.take(1.0) == b"slowfast"
    replies.put(b"x")
    replies.clear()
    assert replies.due is None
