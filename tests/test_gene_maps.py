"""Measured beside predicted expression: which genes, and how they are laid out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure, SubFigure

from histospace_tf.reports import data, gene_map_figure, gene_maps
from histospace_tf.reports.page import number
from made.evaluations import SECTIONS, write_folder
from made.pictures import read_picture


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> data.Results:
    return data.read(write_folder(tmp_path_factory.mktemp("maps") / "evaluation"))


@pytest.mark.parametrize(
    ("r", "wanted"),
    [
        # The well-known ones first, in their order, then the five best.
        (
            {"A": 0.9, "ERBB2": 0.1, "B": 0.8, "GNAS": 0.0, "C": 0.3, "D": 0.4, "E": 0.5, "F": 0.2},
            ["GNAS", "ERBB2", "A", "B", "E", "D", "C"],
        ),
        ({"A": 0.1, "B": 0.5, "C": 0.3}, ["B", "C", "A"]),
        ({"A": 0.1, "B": float("nan"), "C": 0.3}, ["C", "A", "B"]),  # constant as measured: last
        ({"HLA-B": -0.5}, ["HLA-B"]),
        ({"A": 0.1, "not predicted": 0.5}, ["A"]),
    ],
)
def test_first_genes(r: dict[str, float], wanted: list[str]) -> None:
    known = [gene for gene in r if gene != "not predicted"]
    assert gene_maps.first_genes(pd.Series(r), known) == wanted


def test_maps_of_held_out_spots_have_a_block_a_gene_of_one_section(
    results: data.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heights = []
    for genes in (1, 2, 4):
        monkeypatch.setattr(gene_maps, "HELD_OUT_GENES", genes)
        gene_maps.write_held_out(results, tmp_path / "held_out.png")
        picture = read_picture(tmp_path / "held_out.png")
        assert picture.std() > 10
        heights.append(picture.shape[0])
    assert heights[1] == pytest.approx(2 * heights[0], abs=2)
    assert heights[2] == pytest.approx(4 * heights[0], abs=4)


def test_every_map_has_its_own_scale_and_sections_without_the_gene_are_left_out(
    results: data.Results,
) -> None:
    assert results.predictions is not None
    titles = {"GNAS": "GNAS", "ERBB2": "ERBB2, of the first fold's panel alone"}
    both, first = gene_map_figure.figure(results.predictions, results.overviews, titles).subfigs
    spots = {
        gene: [
            c for axes in block.axes for c in axes.collections if isinstance(c, EllipseCollection)
        ]
        for gene, block in zip(titles, (both, first), strict=True)
    }
    assert [len(drawn) for drawn in spots.values()] == [2 * len(SECTIONS), 2]
    for drawn in spots.values():
        for collection in drawn:
            ends = np.percentile(np.asarray(collection.get_array()), [1, 99])
            assert collection.get_clim() == pytest.approx(ends)
            assert collection.axes is not None
            written = [text.get_text() for text in collection.axes.texts]
            assert written == [f"≤ {number(ends[0], 2)}", "", f"≥ {number(ends[1], 2)}"]
    assert both.get_suptitle() == "GNAS, ln(1 + counts)"
    measured = np.asarray(results.predictions[:, "GNAS"].layers["measured"])[:, 0]
    np.testing.assert_array_equal(spots["GNAS"][0].get_array(), measured[: len(measured) // 2])


@pytest.mark.parametrize("genes", [1, 3])
def test_numbers_below_maps_lie_within_the_figure(results: data.Results, genes: int) -> None:
    assert results.predictions is not None
    titles = {str(gene): str(gene) for gene in results.predictions.var_names[-genes:]}
    whole = gene_map_figure.figure(results.predictions, results.overviews, titles)
    whole.draw_without_rendering()
    blocks: list[Figure | SubFigure] = [*whole.subfigs] or [whole]
    for block in blocks:
        bottom = block.bbox.y0
        for axes in block.get_axes():
            for text in axes.texts:
                box = text.get_window_extent()
                assert bottom <= box.y0
                assert box.y1 <= axes.get_window_extent().y0


def test_every_predictor_has_a_map_with_its_r_below(
    results: data.Results,
) -> None:
    table = results.predictions
    assert table is not None
    names = gene_map_figure.predictors(table)
    assert names == ("model", "other <i>", "colour_ridge")
    whole = gene_map_figure.figure(table, results.overviews, {"GNAS": "GNAS"}, names)
    lines = [whole.axes[:5], whole.axes[5:10]]
    below = [[axes.texts[1].get_text() if axes.texts else "" for axes in line] for line in lines]
    for section, line, words in zip(SECTIONS, lines, below, strict=True):
        assert line[0].get_ylabel() == section
        assert [axes.get_title() for axes in line] == [
            *("H&E", "measured", "model", "other <i>", "colour ridge")
        ]
        rows = table.obs["section"] == section
        measured = np.asarray(table[rows, "GNAS"].layers["measured"])[:, 0]
        r = np.corrcoef(np.asarray(table[rows, "GNAS"].X)[:, 0], measured)[0, 1]
        assert words[:3] == ["", "", f"r {r:.2f}"]
    assert [words[3] for words in below] == ["r 1.00", "not predicted"]
    spots = [c for a in whole.axes for c in a.collections if isinstance(c, EllipseCollection)]
    assert len(spots) == 8


def test_more_predictors_than_a_line_holds_go_on_in_a_second_one(results: data.Results) -> None:
    table = results.predictions
    assert table is not None
    table = table.copy()
    for rival in range(4):
        table.layers[f"rival {rival}, with a name that is long"] = table.layers["measured"] * 2
    names = gene_map_figure.predictors(table)
    assert len(names) == 7
    whole = gene_map_figure.figure(table, results.overviews, {"GNAS": "GNAS"}, names)
    shown = [axes for axes in whole.axes if axes.axison]
    assert len(shown) == len(SECTIONS) * 9
    assert [axes.get_ylabel() for axes in whole.axes[:10:5]] == [SECTIONS[0], ""]
    assert max(len(row) for axes in shown for row in axes.get_title().splitlines()) <= 24
