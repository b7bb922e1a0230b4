"""Expression in groups of spots: which groups, their effect sizes, and how they are drawn."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

from histospace_tf.reports import cluster_maps, data, expression_by_group
from histospace_tf.scores import groups
from made.evaluations import SECTIONS, write_folder

CANCER = "invasive cancer"


def table(label: list[str], *, sections: tuple[str, ...] = ("B1",)) -> anndata.AnnData:
    """Spots with labels and clusters, two genes; the second is NaN in the last section."""
    n = len(label) * len(sections)
    random = np.random.default_rng(0)
    measured = random.integers(0, 4, (n, 2)).astype(np.float32)  # with ties
    predicted = measured + random.normal(size=(n, 2)).astype(np.float32)
    if len(sections) > 1:
        predicted[-len(label) :, 1] = np.nan
    obs = pd.DataFrame(
        {
            "section": np.repeat(sections, len(label)),
            "label": label * len(sections),
            "cluster_predicted": [str(i % 2) for i in range(n)],
        },
        index=[f"s{i}" for i in range(n)],
    )
    return anndata.AnnData(
        X=predicted,
        obs=obs,
        var=pd.DataFrame({"unit": "a unit"}, index=["GNAS", "$G$"]),
        layers={"measured": measured},
    )


LABEL = [CANCER] * 7 + ["fat"] * 6 + ["connective"] * 5 + [""] * 2


def test_cancer_stands_against_all_other_labels_and_spots_without_one_are_left_out() -> None:
    chosen = groups.of_spots(table(LABEL).obs, CANCER)
    assert chosen is not None
    assert (chosen.names, chosen.positive) == ((CANCER, groups.OTHER), CANCER)
    assert list(chosen.of_spot) == [CANCER] * 7 + [groups.OTHER] * 11 + [""] * 2


def test_labels_of_any_kind_are_a_group_each_and_clusters_serve_where_there_are_none() -> None:
    layers = groups.of_spots(table(LABEL).obs, None)
    assert layers is not None
    assert (layers.names, layers.positive) == (("connective", "fat", CANCER), "")
    clusters = groups.of_spots(table([""] * 20).obs, CANCER)
    assert clusters is not None
    assert (clusters.names, clusters.by_label) == (("cluster 0", "cluster 1"), False)
    assert groups.of_spots(table([""] * 20).obs[["section"]], None) is None


def test_auroc_counts_pairs_and_medians_are_of_the_groups_own_spots() -> None:
    spots = table(LABEL, sections=("B1", "C1"))
    chosen = groups.of_spots(spots.obs, CANCER)
    assert chosen is not None
    rows = groups.table(spots, chosen)
    assert tuple(rows) == groups.COLUMNS
    assert len(rows) == 3 * 2 * 2  # the second gene is in one section alone
    first = (spots.obs["section"] == "C1").to_numpy()
    inside, outside = (
        np.asarray(spots[first & (chosen.of_spot == name), "GNAS"].layers["measured"])[:, 0]
        for name in chosen.names
    )
    (row,) = rows[
        (rows["gene"] == "GNAS")
        & (rows["section"] == "C1")
        & (rows["values"] == "measured")
        & (rows["group"] == CANCER)
    ].to_dict("records")
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(inside, outside)]
    assert row["auroc"] == pytest.approx(np.mean(pairs))
    assert (row["spots"], row["other_spots"]) == (7, 11)
    assert row["difference_of_medians"] == np.median(inside) - np.median(outside)
    assert [row["lower_quartile"], row["upper_quartile"]] == list(np.quantile(inside, [0.25, 0.75]))
    both = rows.pivot_table(index=["gene", "section", "values"], columns="group", values="auroc")
    np.testing.assert_allclose(both.sum(axis=1), 1.0)


def test_others_have_rows_and_a_panel_each_where_they_say_something() -> None:
    spots = table(LABEL)
    spots.layers["st_net"] = np.column_stack([np.arange(20.0), np.full(20, np.nan)])
    spots.layers["colour_ridge"] = spots.X
    chosen = groups.of_spots(spots.obs, CANCER)
    assert chosen is not None
    rows = groups.table(spots, chosen, others=["st_net"])
    own = rows[rows["values"] == "st_net"]
    assert (set(own["gene"]), set(rows["values"])) == (
        {"GNAS"},
        {"measured", "predicted", "st_net"},
    )
    assert own.set_index("group").loc[CANCER, "auroc"] == 0  # the first seven are the lowest
    both = rows[rows["values"] != "st_net"].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, groups.table(spots, chosen))
    figure = expression_by_group.figure(spots, "GNAS", chosen, rows[rows["gene"] == "GNAS"])
    shown = [axes.get_title() for axes in figure.axes if axes.axison]
    assert shown == ["measured, section B1", "predicted, section B1", "ST-Net, section B1"]


def test_a_group_that_fills_its_section_has_no_auroc() -> None:
    spots = table([CANCER] * 6)
    chosen = groups.of_spots(spots.obs, CANCER)
    assert chosen is not None
    rows = groups.table(spots, chosen)
    assert rows["auroc"].isna().all()
    assert list(rows["other_spots"]) == [0] * 4
    assert np.isfinite(rows["median"]).all()


@pytest.mark.parametrize("sections", [("B1",), ("B1", "C1")])
def test_groups_stand_beside_each_other_measured_and_predicted(sections: tuple[str, ...]) -> None:
    spots = table(LABEL, sections=sections)
    chosen = groups.of_spots(spots.obs, CANCER)
    assert chosen is not None
    rows = groups.table(spots, chosen)
    rows = rows[rows["gene"] == "GNAS"]
    figure = expression_by_group.figure(spots, "GNAS", chosen, rows)
    measured, predicted = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["A", "B"]
    assert measured.get_ylabel() == "GNAS, a unit"
    assert measured.get_ylim() == predicted.get_ylim()
    for axes, kind in ((measured, "measured"), (predicted, "predicted")):
        ticks = [text.get_text() for text in axes.get_xticklabels()]
        own = rows[(rows["values"] == kind) & (rows["group"] == CANCER)].set_index("section")
        for section in sections:
            words = f"AUROC {own['auroc'][section]:.2f}"
            assert sum(words in tick for tick in ticks) >= 1
        assert len(ticks) == 2
        assert "n 7" in ticks[0]
        violins = [c for c in axes.collections if not isinstance(c, PathCollection)]
        colours = [to_hex(tuple(np.asarray(c.get_facecolor())[0])).upper() for c in violins]
        assert colours == [cluster_maps.POSITIVE_COLOUR, expression_by_group.GREY] * len(sections)
        drawn = [c for c in axes.collections if isinstance(c, PathCollection)]
        assert [len(np.asarray(c.get_offsets())) for c in drawn] == [7, 11] * len(sections)


def test_panels_of_many_sections_stand_one_above_the_other() -> None:
    spots = table(LABEL, sections=tuple(f"a long name {i}" for i in range(14)))
    chosen = groups.of_spots(spots.obs, CANCER)
    assert chosen is not None
    rows = groups.table(spots, chosen)
    rows = rows[rows["gene"] == "GNAS"]
    above, below = expression_by_group.figure(spots, "GNAS", chosen, rows).axes
    assert above.get_position().y0 > below.get_position().y1
    assert len(above.get_xticks()) == expression_by_group.MOST_SECTIONS
    for text in above.get_xticklabels():
        assert max(map(len, text.get_text().splitlines())) <= 14


def test_part_writes_a_figure_per_gene_and_every_number(tmp_path: Path) -> None:
    results = data.read(write_folder(tmp_path / "evaluation"))
    (tmp_path / "figures").mkdir()
    part = expression_by_group.part(results, ["GNAS", "ERBB2"], tmp_path / "figures")
    assert part is not None
    assert "label &quot;invasive cancer&quot; stand against" in part[2]
    assert "invasive cancer against the other spots" not in part[2]  # there are none here
    rows = pd.read_csv(tmp_path / "figures" / expression_by_group.TABLE)
    assert results.predictions is not None
    assert set(rows["gene"]) == set(results.predictions.var_names)
    assert set(rows.loc[rows["gene"] == "ERBB2", "section"]) == {SECTIONS[0]}
    drawn = {path.name for path in (tmp_path / "figures").glob("groups_*")}
    assert drawn == {f"groups_{g}.{s}" for g in ("GNAS", "ERBB2") for s in ("png", "svg")}


def test_clusters_are_compared_where_a_gene_is_predicted_highest(tmp_path: Path) -> None:
    spots = table([""] * 10, sections=("B1", "C1"))
    # Cluster 1 is predicted higher in B1, cluster 0 in C1; what was measured agrees in B1 alone.
    cluster = spots.obs["cluster_predicted"].astype(int).to_numpy()
    in_b = (spots.obs["section"] == "B1").to_numpy()
    spots.X[:, 0] = np.where(in_b, cluster, 1 - cluster)
    spots.layers["measured"][:, 0] = cluster
    results = data.Results(tmp_path, {"sections": {}, "mean": {}}, predictions=spots)
    part = expression_by_group.part(results, ["GNAS"], tmp_path)
    assert part is not None
    assert "cluster in which a gene is predicted highest" in part[2]
    cells = re.findall(r"GNAS</th><td>(.*?)</td></tr>", part[2])
    assert cells[0].split("</td><td>")[:2] == ["0.50", "1.00"]  # measured 1 and 0, predicted 1
    assert "by construction" in part[2]
