"""Secret files destroyed: overwritten before they go, in any order of crashes, and known again when they are new."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qmodd.keys import erasure
from qmodd.keys.erasure import IDENTITY, KEK, NEXT_PRE_SHARED, PRE_SHARED, RING, Erasure, Mark, destroy

MARK = Mark("sold", "ann and ben", "2026-01-01T00:00:00+00:00")
NAMES = (KEK, PRE_SHARED, NEXT_PRE_SHARED, RING, IDENTITY)


class Killed(BaseException):
    """The power goes."""


def secrets(directory: Path, salt: bytes = b"") -> dict[str, Path]:
    files = {name: directory / f"{number}.key" for number, name in enumerate(NAMES)}
    for name, path in files.items():
        path.write_bytes((name.encode() + salt) * 9000)
    return files


def erasure_in(directory: Path) -> Erasure:
    return Erasure(directory / "zeroise.json", {name: directory / f"{number}.key" for number, name in enumerate(NAMES)})


def test_bytes_are_overwritten_in_place_before_the_name_goes(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"secret" * 50_000)
    with open(path, "rb") as seen:  # the same bytes on disk, by a name that is gone
        destroy(path)
        left = seen.read()
    assert not path.exists()
    assert left == bytes(300_000)


def test_what_is_not_there_is_destroyed(tmp_path: Path) -> None:
    destroy(tmp_path / "none")


def test_a_link_goes_with_what_it_points_to(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"secret")
    link.symlink_to(real)
    destroy(link)
    assert list(tmp_path.iterdir()) == []
    link.symlink_to(tmp_path / "nowhere")
    destroy(link)
    assert not link.is_symlink()


def test_mark_comes_first_and_the_first_reason_stands(tmp_path: Path) -> None:
    secrets(tmp_path)
    one = erasure_in(tmp_path)
    assert one.begin(MARK)
    assert not one.begin(Mark("again", "eve", ""))
    found = erasure_in(tmp_path).mark
    assert found is not None
    assert (found.why, found.done) == ("sold", False)


@pytest.mark.parametrize("at", range(len(NAMES) + 1))
def test_a_kill_before_any_file_is_made_good(tmp_path: Path, at: int) -> None:
    files = secrets(tmp_path)
    one, seen = erasure_in(tmp_path), []

    def step(name: str) -> None:
        if len(seen) == at:
            raise Killed
        seen.append(name)

    one.begin(MARK)
    if at < len(NAMES):
        with pytest.raises(Killed):
            one.destroy_files(step=step)
        assert [p.exists() for p in files.values()] == [n >= at for n in range(len(NAMES))]
    else:
        assert one.destroy_files(step=step) == {}
    again = erasure_in(tmp_path)
    assert again.mark is not None
    assert not again.mark.done
    assert again.destroy_files() == {}
    again.finish({})
    assert [p.name for p in tmp_path.iterdir()] == ["zeroise.json"]
    assert again.missing() == [f"{n} ({files[n]})" for n in (KEK, PRE_SHARED, IDENTITY)]


def test_new_secrets_end_it(tmp_path: Path) -> None:
    secrets(tmp_path)
    one = erasure_in(tmp_path)
    one.begin(MARK)
    one.finish(one.destroy_files())
    secrets(tmp_path, b"new")
    assert erasure_in(tmp_path).missing() == []
    one.renewed()
    assert erasure_in(tmp_path).mark is None


def test_a_file_that_cannot_be_destroyed_is_told_and_never_passes_for_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = secrets(tmp_path)
    whole = erasure.destroy

    def partly(path: Path) -> None:
        if path == files[KEK]:
            raise OSError(30, "Read-only file system")
        whole(path)

    monkeypatch.setattr(erasure, "destroy", partly)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    one = erasure_in(tmp_path)
    one.begin(MARK)
    kept = one.destroy_files()
    hint = "a credential: delete its sealed original by hand"
    assert kept == {KEK: f"{files[KEK]}: Read-only file system ({hint})"}
    one.finish(kept)
    others = {n: p for n, p in files.items() if n != KEK}
    for name, path in others.items():
        path.write_bytes(name.encode() + b"new")
    again = erasure_in(tmp_path)
    assert again.missing() == [f"{KEK} ({files[KEK]}, still the old one)"]
    files[KEK].write_bytes(b"another")
    assert again.missing() == []
    assert b"key-encryption keykey" not in again.path.read_bytes()


def test_a_mark_that_cannot_be_read_counts_as_begun(tmp_path: Path) -> None:
    (tmp_path / "zeroise.json").write_text("{")
    found = erasure_in(tmp_path).mark
    assert found is not None
    assert not found.done


def test_a_directory_that_refuses_is_an_error(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        with pytest.raises(OSError, match="directory"):
            destroy(tmp_path)
        return
    path = tmp_path / "secret"
    path.write_bytes(b"x")
    path.chmod(0o400)
    with pytest.raises(OSError, match="denied"):
        destroy(path)
