"""Figures as SVG: well-formed, small, and honest about what they are given."""

from __future__ import annotations

import builtins
from typing import Any
from xml.etree import ElementTree

import pytest

from calibration.plot import Figure, Heatmap, Plot, Series
from qmodd.report.dag import BOX_H, BOX_W, Node, draw_graph
from qmodd.report.svg import DARK, MOST_POINTS, NoPlots, described, draw, draw_all, ready, standalone
from tests.report.made_up import CROSSTALK, EVIL, FRINGE

MANY = Plot("Long", "x (s)", "y (1)", (Series("all", list(range(5000)), [0.5] * 5000, "line"),))
LOG = Plot("Rates", "bias (µA)", "rate (1/s)", (Series("dark", [1.0, 2.0], [10.0, 1e5]),), log_y=True)
EMPTY = Heatmap("Nothing", (), (), ())


@pytest.mark.parametrize("figure", [FRINGE, CROSSTALK, MANY, LOG, EMPTY], ids=lambda f: f.title)
def test_it_is_a_picture_of_its_own(figure: Figure) -> None:
    text = standalone(draw(figure, "f"), DARK)
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in text
    assert "#0101" not in text
    assert "#0202" not in text
    assert len(text) < 40_000
    assert root.findtext("{http://www.w3.org/2000/svg}title") == figure.title


def test_words_stay_words() -> None:
    text = draw(FRINGE)
    for word in ("photocurrent (µA)", "heater power (mW)", "null", "pa0 model"):
        assert word in text


def test_numbers_on_a_heatmap_are_not_cut() -> None:
    text = draw(Heatmap("H", ("a",), ("b",), ((0.00312,),), "1"))
    assert ">0.00312<" in text
    assert "values in" not in text


def test_mathematics_is_not_read_from_names() -> None:
    plot = Plot("cost in $ and $", "$x$ (V)", "y", (Series("$", [0.0, 1.0], [0.0, 1.0]),))
    assert "cost in $ and $" in draw(plot)


def test_a_long_line_is_thinned() -> None:
    assert MOST_POINTS < 5000
    assert "5000 values" in described(MANY)


def test_model_and_readings_of_one_name_share_a_colour() -> None:
    text = draw(FRINGE)
    assert "var(--s0)" in text
    assert "var(--s1)" in text
    assert "var(--s2)" not in text


def test_several_have_ids_of_their_own() -> None:
    one, two = draw_all([CROSSTALK, CROSSTALK], "x")
    assert 'id="x-0-title"' in one
    assert 'id="x-1-title"' in two


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    ready()
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(NoPlots, match=r"pip install 'qmodd\[report\]'"):
        ready()


# the graph


def boxes(text: str) -> dict[str, tuple[float, float]]:
    """Label -> upper left corner."""
    ns = {"s": "http://www.w3.org/2000/svg"}
    found = {}
    for group in ElementTree.fromstring(standalone(text)).iterfind(".//s:g", ns):
        rect, label = group.find("s:rect", ns), group.find("s:text", ns)
        assert rect is not None
        assert label is not None
        found[str(label.text)] = (float(rect.attrib["x"]), float(rect.attrib["y"]))
    return found


def test_what_rests_on_something_stands_right_of_it_or_below() -> None:
    nodes = [Node("a", ()), Node("b", ()), Node("c", ("a", "b")), Node("d", ("c", "a"))]
    at = boxes(draw_graph(nodes, "g", "graph"))
    assert at["A"][0] == at["B"][0] < at["C"][0] < at["D"][0]
    chain = [Node(f"n{i}", (f"n{i - 1}",) if i else ()) for i in range(12)]
    spots = list(boxes(draw_graph(chain, "g", "graph")).values())
    assert spots[5][1] > spots[4][1]
    assert max(x for x, _ in spots) < 1000.0


def test_boxes_do_not_overlap() -> None:
    nodes = [Node("root", ())] + [Node(f"leaf{i}", ("root",)) for i in range(7)]
    nodes += [Node(f"far{i}", (f"leaf{i}", "leaf0")) for i in range(6)]
    spots = list(boxes(draw_graph(nodes, "g", "graph")).values())
    for i, (x, y) in enumerate(spots):
        for u, v in spots[i + 1 :]:
            assert abs(x - u) >= BOX_W or abs(y - v) >= BOX_H


def test_lines_that_say_nothing_new_are_left_out() -> None:
    nodes = [Node("a", ()), Node("b", ("a",)), Node("c", ("a", "b"))]
    assert draw_graph(nodes, "g", "graph").count("<path") == 2


def test_a_graph_is_escaped_and_links_where_it_is_told() -> None:
    text = draw_graph([Node("a", (), "refused", EVIL)], "g", EVIL)
    assert "<script" not in text
    assert "✗" in text
    ElementTree.fromstring(standalone(text))
