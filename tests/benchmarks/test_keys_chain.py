"""The replayed receiver really distils: the far end of the benchmark follows the engine's protocol."""

from __future__ import annotations

import pytest

from benchmarks.keys_chain import Size, _best_stretch, _chain, _run


@pytest.mark.processes
def test_blocks_are_distilled_from_replayed_tags() -> None:
    results = {r.name: r for r in _run(_chain(Size(blocks=4, blocks_beside=4, times=1)))}
    chain = results["chain"]
    assert 0.0 < chain.value < 1.5
    assert chain.detail is not None
    assert chain.detail["secret_mbit_per_s"] > 0.02 * chain.detail["sifted_mbit_per_s"]
    assert results["loop_beside_chain"].value > 0.0


def test_the_best_stretch_counts() -> None:
    times = [0.0, 1.0, 2.0, 2.5, 3.0, 5.0, 7.0]
    assert _best_stretch(times, 3) == pytest.approx(0.5)
    assert _best_stretch([0.0, 4.0], 5) == pytest.approx(4.0)
