from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from calibration.record import Record, as_matrix, block_diagonal, diagonal, digest
from calibration.store import RecordStore, StoreDamaged

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def record(name: str = "fringe", **value: float) -> Record:
    value = value or {"p_pi_w": 0.04, "phi0_rad": 0.3}
    names = tuple(value)[:1]
    return Record(
        name=name, value=value, covariance_names=names, covariance=diagonal([1e-4]), created=NOW,
        valid_until=NOW + timedelta(days=1), raw_sha256=digest({"x": [1, 2]}),
    )  # fmt: skip


def test_json_round_trip_is_equal() -> None:
    r = record()
    assert Record.from_json(r.to_json()) == r


def test_sigma_is_zero_for_a_setting_and_unknown_names_are_an_error() -> None:
    r = record()
    assert r.sigma("p_pi_w") == pytest.approx(1e-4)
    assert r.sigma("phi0_rad") == 0.0
    with pytest.raises(KeyError):
        r.sigma("nothing")


@pytest.mark.parametrize(
    "change",
    [
        {"covariance_names": ("p_pi_w", "phi0_rad")},
        {"covariance_names": ("other",)},
        {"created": datetime(2026, 1, 1)},  # noqa: DTZ001 - the point of the test
        {"value": {"p_pi_w": float("nan")}},
        {"name": "Not A Name"},
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Record.model_validate(record().model_dump() | change)


def test_records_are_immutable() -> None:
    with pytest.raises(ValidationError):
        record().name = "other"  # type: ignore[misc]


def test_digest_depends_on_readings_and_names_only() -> None:
    assert digest({"a": [1.0], "b": [2.0]}) == digest({"b": np.array([2.0]), "a": np.array([1.0])})
    assert digest({"a": [1.0]}) != digest({"b": [1.0]})
    assert digest({"a": [1.0]}) != digest({"a": [1.0000001]})


def test_block_diagonal() -> None:
    assert block_diagonal([np.array([[1.0]]), np.array([[2.0, 3.0], [3.0, 4.0]])]) == as_matrix(
        np.array([[1.0, 0, 0], [0, 2, 3], [0, 3, 4]])
    )


def test_store_gives_versions_and_tells_listeners(tmp_path: Path) -> None:
    store, heard = RecordStore(tmp_path / "r.jsonl"), []
    store.subscribe(lambda change: heard.append((change.name, change.record.version if change.record else None)))
    assert store.active("fringe") is None
    assert store.append(record()).version == 1
    assert store.append(record(p_pi_w=0.05)).version == 2
    assert store.active("fringe").value == {"p_pi_w": 0.05}  # type: ignore[union-attr]
    store.rollback("fringe")
    assert heard == [("fringe", 1), ("fringe", 2), ("fringe", 1)]
    with pytest.raises(LookupError):
        store.rollback("fringe")


def test_store_survives_reopening_and_a_torn_last_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "r.jsonl"
    store = RecordStore(path)
    store.append(record())
    store.append(record(p_pi_w=0.05))
    store.rollback("fringe")
    store.append(record("other"))
    store.invalidate("other", "its parent was redone")
    with open(path, "ab") as f:
        f.write(b'{"record":{"name":"fri')
    again = RecordStore(path)
    assert again.active("fringe") == store.history("fringe")[0]
    assert again.invalid_reason("other") == "its parent was redone"
    assert again.append(record("other")).version == 2
    assert again.invalid_reason("other") is None
    assert RecordStore(path).names() == ("fringe", "other")
    assert len(list(again.export())) == 4


def test_only_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"rec')
    assert RecordStore(path).append(record()).version == 1
    assert RecordStore(path).active("fringe") is not None


def test_damage_in_the_middle_is_named_and_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    RecordStore(path).append(record())
    path.write_bytes(b"garbage\n" + path.read_bytes())
    with pytest.raises(StoreDamaged, match="line 1"):
        RecordStore(path)


def test_invalidate_unknown_is_nothing() -> None:
    store = RecordStore()
    store.invalidate("nothing", "why")
    assert store.invalid_reason("nothing") is None
