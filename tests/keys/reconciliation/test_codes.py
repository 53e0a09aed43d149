import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.keys.reconciliation import LADDER, LAST_ROUND, select_code
from qmodd.keys.reconciliation.blocks import split_base, split_rows
from qmodd.keys.reconciliation.codes import COLUMNS, LIFT, binary_entropy, build, inverse_entropy
from tests.keys.reconciliation.test_decoder import sums

SOME = range(0, len(LADDER), 9)


def check_matrix(base, rows):
    assert base.rows == rows
    assert np.bincount(base.column, minlength=COLUMNS).min() >= 2
    assert base.shift.min() >= 0
    assert base.shift.max() < LIFT
    for layer in range(rows):
        columns = base.column[base.edges_of(layer)]
        assert len(set(columns)) == len(columns) >= 2


@pytest.mark.parametrize("rung", SOME)
def test_codes_are_well_built_and_stay_so_when_rows_are_taken_apart(rung):
    code = LADDER[rung]
    assert len(code.base.column) == code.edges
    assert sum(n for _, n in code.degrees) == COLUMNS
    check_matrix(code.base, code.rows)
    seen, rows = set(), code.rows
    for round_ in range(1, LAST_ROUND):
        taken = split_rows(code, round_)
        assert taken
        assert not seen & set(taken)
        seen |= set(taken)
        rows += len(taken)
        check_matrix(split_base(code, round_), rows)
    assert seen == set(range(code.rows))


def test_halves_of_a_row_add_up_to_it():
    code = LADDER[5]
    bits = np.random.default_rng(1).integers(0, 2, (COLUMNS, LIFT)).astype(np.uint8)
    whole = sums(code.base, bits)
    for round_ in range(1, LAST_ROUND):
        parts, at = sums(split_base(code, round_), bits), 0
        split = {row for past in range(1, round_ + 1) for row in split_rows(code, past)}
        for row in range(code.rows):
            count = 2 if row in split else 1
            np.testing.assert_array_equal(np.bitwise_xor.reduce(parts[at : at + count]), whole[row])
            at += count


@pytest.mark.parametrize(("share", "most"), [(0.1, 0.05), (0.4, 0.0), (0.7, 0.0), (1.0, 0.0)])
def test_codes_have_few_or_no_four_cycles(share, most):
    base = LADDER[int(share * (len(LADDER) - 1))].base
    layers = np.searchsorted(base.start, np.arange(len(base.column)), side="right") - 1
    seen, repeated, pairs = set(), 0, 0
    for c in range(COLUMNS):
        edges = np.flatnonzero(base.column == c)
        for i in edges:
            for j in edges:
                if layers[i] < layers[j]:
                    key = (layers[i], layers[j], (base.shift[i] - base.shift[j]) % LIFT)
                    pairs += 1
                    repeated += key in seen
                    seen.add(key)
    assert repeated <= most * pairs


def test_the_construction_never_changes():
    # Both modules must build the same code from the same table, whatever their libraries' versions.
    base = build(11, ((2, 5), (3, 159), (11, 92)), 1)
    text = json.dumps([base.start.tolist(), base.column.tolist(), base.shift.tolist()])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "23d581abd2e3eae9"
    with pytest.raises(ValueError, match="do not fit"):
        build(8, ((3, 255),), 1)


def test_digests_tell_codes_apart_and_are_the_same_every_time():
    assert len({LADDER[i].digest for i in SOME}) == len(SOME)
    code = LADDER[0]
    again = type(code)(code.rung, code.rows, code.degrees, code.schedule, 0.0, 0.0)
    assert again.digest == code.digest
    assert len(code.digest) == 16


def test_efficiency_of_the_ladder():
    # What the tables promise for frames that decode at once; the benchmark measures it with help counted.
    limits = {0.005: 1.55, 0.01: 1.40, 0.015: 1.30, 0.02: 1.27, 0.03: 1.24, 0.09: 1.20}
    for qber in np.arange(0.0025, 0.0901, 0.0025).round(4):
        most = next(f for upto, f in limits.items() if qber <= upto)
        assert select_code(float(qber)).efficiency(float(qber)) < most
    assert select_code(0.02, hurry=True).efficiency(0.02) <= 1.27
    assert select_code(0.05, hurry=True).efficiency(0.05) <= 1.19


def test_the_ladder_is_in_order():
    rows = [code.rows for code in LADDER]
    assert rows == sorted(set(rows))
    for i, code in enumerate(LADDER):
        # More rows are there for reaching further, at least in one way.
        assert all(code.sure_qber > c.sure_qber or code.thrifty_qber > c.thrifty_qber for c in LADDER[:i])
        assert 0.5 * code.thrifty_qber < code.sure_qber <= code.thrifty_qber
    assert [code.rung for code in LADDER] == list(range(len(LADDER)))


@settings(deadline=None)
@given(qber=st.floats(0.0, 0.4999))
def test_a_code_is_chosen_that_reaches_the_qber_and_in_a_hurry_one_with_more_rows(qber):
    thrifty, hurried = select_code(qber), select_code(qber, hurry=True)
    assert hurried.rows >= thrifty.rows
    assert thrifty.thrifty_qber >= qber or thrifty is LADDER[-1]
    assert hurried.sure_qber >= qber or hurried is LADDER[-1]


def test_what_is_no_qber_is_refused():
    for qber in (0.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="QBER"):
            select_code(qber)


@given(st.floats(0.0, 1.0))
def test_entropy_and_its_inverse(h):
    assert binary_entropy(inverse_entropy(h)) == pytest.approx(h, abs=1e-9)


def test_entropy_ends_at_one():
    with pytest.raises(ValueError, match="entropy"):
        inverse_entropy(1.1)
