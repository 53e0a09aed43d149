import io
import json

import pytest

from qmodd.cli import main
from qmodd.keys.counts import BlockCounts
from qmodd.keys.estimation import Proof, key_length, key_length_interval

FILE = {
    "proof": "wiesemann2024",
    "mu": [0.54, 0.18],
    "p_mu": [0.5, 0.5],
    "n_z": [745_000, 252_182],
    "m_z": [5290, 1790],
    "n_x": [35_000, 11_837],
    "m_x": [508, 172],
    "eps_sec": 1e-9,
    "eps_cor": 1e-15,
    "leak_bits": 75_967,
}
COUNTS = BlockCounts(*(tuple(FILE[name]) for name in ("n_z", "m_z", "n_x", "m_x")))


def run(capsys, *argv):
    """(status, last line of stdout as JSON or None, stdout, stderr)"""
    status = main(["rate", *map(str, argv)])
    out, err = capsys.readouterr()
    last = out.splitlines()[-1] if out else ""
    return status, json.loads(last) if last.startswith("{") else None, out, err


def written(tmp_path, change=None, drop=None):
    content = FILE | (change or {})
    content.pop(drop, None)
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(content))
    return path


def test_counts_give_the_length_with_all_that_led_to_it(tmp_path, capsys):
    status, got, out, err = run(capsys, "--counts", written(tmp_path), "--json")
    own = key_length(Proof.WIESEMANN2024, COUNTS, (0.54, 0.18), (0.5, 0.5), 1e-9, 1e-15, 75_967)
    assert status == 0
    assert len(out.splitlines()) == 1
    assert "secret bits" in err
    for name in ("length_bits", "s_z0", "s_z1", "s_x1", "v_x1", "phi_z", "leak_bits", "theorem"):
        assert got[name] == getattr(own, name)
    assert got["why_zero"] is None


def test_intervals_toml_and_standard_input(tmp_path, capsys, monkeypatch):
    toml = "\n".join(f"{k} = {json.dumps(v)}" for k, v in (FILE | {"mu": [[0.53, 0.55], [0.177, 0.183]]}).items())
    monkeypatch.setattr("sys.stdin", io.StringIO(toml))
    status, got, *_ = run(capsys, "--counts", "-", "--json")
    box = [(0.53, 0.55), (0.177, 0.183)]
    own = key_length_interval(Proof.WIESEMANN2024, COUNTS, box, (0.5, 0.5), 1e-9, 1e-15, 75_967)
    assert (status, got["length_bits"]) == (0, own.length_bits)
    assert got["mu"] == list(own.mu)


def test_a_block_without_key_says_why(tmp_path, capsys):
    status, got, *_ = run(capsys, "--counts", written(tmp_path, {"n_x": [0, 0], "m_x": [0, 0]}), "--json")
    assert (status, got["length_bits"]) == (0, 0)
    assert "in X" in got["why_zero"]
    status, _, out, _ = run(capsys, "--counts", written(tmp_path, {"leak_bits": 10**6}))
    assert "0 secret bits\nno key: leak" in out


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"proof": "mine"}, ("proof", "'mine'", "lim2014")),
        ({"n_z": [-1, 3]}, ("n_z.0", "-1", "greater than or equal to 0")),
        ({"n_z": [1.5, 3]}, ("n_z.0", "1.5", "valid integer")),
        ({"eps_sec": 0}, ("eps_sec", "0", "greater than 0")),
        ({"eps_cor": 2}, ("eps_cor", "2", "less than 1")),
        ({"mu": [0.1, 0.2]}, ("mu", "0.1", "not ordered")),
        ({"mu": [[0.6, 0.5], 0.1]}, ("mu", "0.6", "not ordered")),
        ({"mu": [0.5, 0.2, 0.1]}, ("mu", "needs 2")),
        ({"p_mu": [0.5, 0.6]}, ("p_mu", "0.6", "add up to 1")),
        ({"m_z": [10**7, 0]}, ("10000000 errors in 745000", "Z")),
        ({"n_x": [1, 2, 3]}, ("different numbers",)),
        ({"leak_bits": -5}, ("leak_bits", "-5", "greater than or equal to 0")),
        ({"colour": 1}, ("colour", "1", "not permitted")),
        ({"mu": "x" * 999}, ("mu", "...")),
    ],
)
def test_errors_name_field_value_and_limit(tmp_path, capsys, change, parts):
    status, got, out, err = run(capsys, "--counts", written(tmp_path, change), "--json")
    assert (status, got, out) == (2, None, "")
    assert "counts.json" in err
    for part in parts:
        assert part in err
    assert "Traceback" not in err


@pytest.mark.parametrize("missing", sorted(FILE))
def test_nothing_is_assumed(tmp_path, capsys, missing):
    status, _, _, err = run(capsys, "--counts", written(tmp_path, drop=missing))
    assert status == 2
    assert f"{missing} is missing" in err


@pytest.mark.parametrize("text", ["{", "no = = toml", "[1, 2]", "", "{" + '"a":[' * 5000])
def test_files_that_are_none(tmp_path, capsys, text):
    path = tmp_path / "odd"
    path.write_text(text)
    status, _, _, err = run(capsys, "--counts", path)
    assert status == 2
    assert str(path) in err
    assert run(capsys, "--counts", tmp_path / "absent")[0] == 2


def test_one_loss_at_the_top_and_in_the_list(capsys):
    status, got, *_ = run(capsys, "--loss-db", 10, "--json")
    assert status == 0
    assert got["points"] == [{k: v for k, v in got.items() if k in got["points"][0]}]
    assert got["length_bits"] > 100_000
    assert got["skr_bps"] == pytest.approx(got["length_bits"] / got["block_s"])


def test_several_losses_blocks_and_overrides(capsys):
    argv = ["--loss-db", 10, 30, "--blocks", "--set", "source.p_x=0.4", "--n-z", 2_000_000, "--proof", "rusca2018"]
    status, got, *_ = run(capsys, *argv, "--json")
    assert status == 0
    assert [p["loss_db"] for p in got["points"]] == [10, 30]
    assert "length_bits" not in got
    assert {p["n_z"] for p in got["points"]} == {2_000_000}
    assert "Rusca" in got["points"][0]["theorem"]
    assert {b["loss_db"] for b in got["blocks"]} == {10, 30}
    _, _, text, _ = run(capsys)
    assert len(text.splitlines()) == 12


def test_a_proposal_is_better_and_says_so(capsys):
    status, got, _, err = run(capsys, "--loss-db", 5, "--optimise", "--fixed", "basis_split", "--json")
    assert status == 0
    (p,) = got["proposals"]
    assert p["settings"]["basis_split"] == 0.26
    assert p["expected"]["skr_bps"] > p["present_skr_bps"]
    assert "proposed at 5 dB" in err


def test_a_plot_is_written(tmp_path, capsys):
    path = tmp_path / "rate.svg"
    status, got, *_ = run(capsys, "--loss-db", 10, 20, "--plot", path, "--json")
    assert (status, got["plot"]) == (0, str(path))
    svg = path.read_text()
    assert svg.startswith("<svg")
    assert "secret key rate (bit/s)" in svg
    assert run(capsys, "--loss-db", 10, "--plot", tmp_path / "no" / "where.svg")[0] == 2


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--loss-db", "-1"], "0 to 200"),
        (["--loss-db", "nan"], "0 to 200"),
        (["--set", "source.colour=1"], "KEY=VALUE"),
        (["--set", "source.p_x"], "KEY=VALUE"),
        (["--set", "source.p_x=lots"], "no TOML value"),
        (["--set", "source.p_x=2"], "source.p_x = 2"),
        (["--n-z", "5"], "keys.n_z = 5"),
        (["--proof", "lim2014"], "needs 3 intensities"),
        (["--fixed", "p_x"], "goes with --optimise"),
        (["--optimise", "--fixed", "colour"], "one of mu_signal"),
        (["--system", "/nowhere.toml"], "/nowhere.toml"),
        (["--counts", "x", "--plot", "y"], "does not go with --counts"),
    ],
)
def test_wrong_usage(capsys, argv, text):
    status, _, out, err = run(capsys, *argv)
    assert (status, out) == (2, "")
    assert text in err


def test_a_system_file_names_what_is_wrong(tmp_path, capsys):
    path = tmp_path / "s.toml"
    path.write_text("[receiver]\nefficiency = [0.5, 1.5, 0.5]\n[source]\nsymbol_period_ps = -1\n")
    status, _, _, err = run(capsys, "--system", path)
    assert status == 2
    assert "source.symbol_period_ps = -1" in err
    assert "efficiency (0.5, 1.5, 0.5)" in err


@pytest.mark.parametrize("name", ["boaron2018"])
def test_published_systems_load(capsys, name):
    from benchmarks.keys_rate import PUBLISHED

    status, got, *_ = run(capsys, "--system", PUBLISHED / f"{name}.toml", "--loss-db", 42.7, "--json")
    assert status == 0
    assert got["skr_bps"] > 0
