"""Measured beside predicted expression: which genes, and how they are laid out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection

from histospace_tf.reports import data, gene_map_figure, gene_maps
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


def test_maps_of_one_gene_share_a_scale_and_leave_out_sections_without_it(
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
        assert len({collection.get_clim() for collection in drawn}) == 1
    measured = np.asarray(results.predictions[:, "GNAS"].layers["measured"])[:, 0]
    np.testing.assert_array_equal(spots["GNAS"][0].get_array(), measured[: len(measured) // 2])


def test_every_predictor_has_a_map_with_its_r_below_on_the_genes_scale(
    results: data.Results,
) -> None:
    table = results.predictions
    assert table is not None
    names = gene_map_figure.predictors(table)
    assert names == ("model", "other <i>", "colour_ridge")
    whole = gene_map_figure.figure(table, results.overviews, {"GNAS": "GNAS"}, names)
    lines = [whole.axes[:5], whole.axes[5:10]]  # then the colour bar
    for section, line in zip(SECTIONS, lines, strict=True):
        assert line[0].get_ylabel() == section
        assert [axes.get_title() for axes in line] == [
            *("H&E", "measured", "model", "other <i>", "colour ridge")
        ]
        rows = table.obs["section"] == section
        measured = np.asarray(table[rows, "GNAS"].layers["measured"])[:, 0]
        r = np.corrcoef(np.asarray(table[rows, "GNAS"].X)[:, 0], measured)[0, 1]
        assert line[2].get_xlabel() == f"r {r:.2f}"
    assert [line[3].get_xlabel() for line in lines] == ["r 1.00", "not predicted"]
    spots = [c for a in whole.axes for c in a.collections if isinstance(c, EllipseCollection)]
    assert len(spots) == 8
    assert len({collection.get_clim() for collection in spots}) == 1


def test_more_predictors_than_a_line_holds_go_on_in_a_second_one(results: data.Results) -> None:
    table = results.predictions
    assert table is not None
    table = table.copy()
    for number in range(4):
        table.layers[f"rival {number}, with a name that is long"] = table.layers["measured"] * 2
    names = gene_map_figure.predictors(table)
    assert len(names) == 7
    whole = gene_map_figure.figure(table, results.overviews, {"GNAS": "GNAS"}, names)
    shown = [axes for axes in whole.axes[:-1] if axes.axison]
    assert len(shown) == len(SECTIONS) * 9
    assert [axes.get_ylabel() for axes in whole.axes[:10:5]] == [SECTIONS[0], ""]
    assert max(len(row) for axes in shown for row in axes.get_title().splitlines()) <= 24
