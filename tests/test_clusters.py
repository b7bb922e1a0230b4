"""Maps of clusters: which panels, what colours mean, what is refused."""

from __future__ import annotations

from pathlib import Path

import anndata
import cv2
import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from histospace_tf.reports import cluster_maps
from histospace_tf.vocabulary import InputError
from made.tissue import he_picture

CANCER = "invasive cancer"


def table(*, n: int = 24, kinds: int = 3, **columns: list[str]) -> anndata.AnnData:
    """Spots of one section, the first half cancer, clustered as labelled."""
    half = n // 2
    label = [CANCER] * half + [f"tissue {i % (kinds - 1)}" for i in range(n - half)]
    obs = {
        "section": "B1",
        "cluster_predicted": ["1"] * half + ["0"] * (n - half),
        "cluster_measured": ["0"] * (half - 2) + ["1"] * (n - half + 2),
        "label": label,
        **columns,
    }
    places = np.array([(40.0 + 30 * (i % 6), 40.0 + 30 * (i // 6)) for i in range(n)])
    return anndata.AnnData(
        X=np.zeros((n, 1), np.float32),
        obs=pd.DataFrame(obs, index=[f"s{i}" for i in range(n)]),
        obsm={"spatial": places},
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[matplotlib.figure.Figure]:
    """The figures that are made, to look into."""
    made: list[matplotlib.figure.Figure] = []
    keep = cluster_maps.Figure

    def figure(*args: object, **kwargs: object) -> matplotlib.figure.Figure:
        made.append(keep(*args, **kwargs))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(cluster_maps, "Figure", figure)
    return made


def key(axes: object) -> dict[str, str]:
    """Legend of a panel: text -> colour."""
    legend = axes.get_legend()  # type: ignore[attr-defined]
    return {
        text.get_text(): to_hex(patch.get_facecolor()).upper()
        for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
    }


def test_clusters_and_annotation_stand_beside_the_image(
    tmp_path: Path, drawn: list[matplotlib.figure.Figure]
) -> None:
    path = tmp_path / "clusters.png"
    cluster_maps.cluster_figure(table(), he_picture(), 1.0, path, title="B1", mpp=1.0)
    assert cv2.imread(str(path)) is not None
    assert list(tmp_path.iterdir()) == [path]
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert titles == [
        "H&E, section B1",
        "predicted, 2 clusters\n24 of 24 as annotated\nbest constant 12, adjusted Rand 1.00",
        "measured, 2 clusters\n22 of 24 as annotated\nbest constant 12, adjusted Rand 0.68",
        "annotation",
    ]


def test_vermilion_is_cancer_in_every_map(
    tmp_path: Path, drawn: list[matplotlib.figure.Figure]
) -> None:
    cluster_maps.cluster_figure(table(), None, 1.0, tmp_path / "c.svg", title="B1", mpp=1.0)
    predicted, measured, annotation = map(key, drawn[0].axes)
    cancer = cluster_maps.POSITIVE_COLOUR
    assert predicted[f"cluster 1, matched to {CANCER} (12)"] == cancer
    assert measured[f"cluster 0, matched to {CANCER} (10)"] == cancer
    assert annotation[f"{CANCER} (12)"] == cancer
    for legend in (predicted, measured, annotation):
        assert len(set(legend.values())) == len(legend), "one colour, one meaning"
    # Each disc has the colour that the key gives its value.
    (collection,) = [c for c in drawn[0].axes[0].collections if c.get_array() is not None]
    shown = [to_hex(c).upper() for c in collection.to_rgba(np.asarray(collection.get_array()))]
    assert shown == [cancer] * 12 + [predicted["cluster 0 (12)"]] * 12


def test_without_labels_no_cluster_is_cancer(
    tmp_path: Path, drawn: list[matplotlib.figure.Figure]
) -> None:
    cluster_maps.cluster_figure(
        table(label=[""] * 24), he_picture(), 1.0, tmp_path / "c.png", title="B1"
    )
    assert len(drawn[0].axes) == 3
    predicted, measured = (axes.get_title() for axes in drawn[0].axes[1:])
    assert "\n22 of 24 as measured\nbest constant 14, adjusted Rand 0.68" in predicted
    assert measured == "measured, 2 clusters"
    assert [axes.get_title(loc="left") for axes in drawn[0].axes] == list("ABC")
    assert cluster_maps.POSITIVE_COLOUR not in key(drawn[0].axes[1]).values()


def test_spots_without_a_label_are_drawn_and_counted(
    tmp_path: Path, drawn: list[matplotlib.figure.Figure]
) -> None:
    some = [CANCER] * 5 + [""] * 4 + ["fat"] * 15
    cluster_maps.cluster_figure(table(label=some), None, 1.0, tmp_path / "c.png", title="B1")
    legend = key(drawn[0].axes[-1])
    assert legend["none (4)"] == cluster_maps.NO_LABEL_COLOUR
    assert "of 20 as annotated" in drawn[0].axes[0].get_title()


def test_more_labels_than_colours_have_a_colour_each(
    tmp_path: Path, drawn: list[matplotlib.figure.Figure]
) -> None:
    cluster_maps.cluster_figure(table(kinds=12), None, 1.0, tmp_path / "c.png", title="B1")
    legend = key(drawn[0].axes[-1])
    assert len(set(legend.values())) == len(legend) == 12


def test_several_sections_or_nothing_to_draw_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.png"
    with pytest.raises(InputError, match="one section; the table holds spots of 'A', 'B'"):
        cluster_maps.cluster_figure(
            table(section=["A", "B"] * 12), None, 1.0, path, title="several"
        )
    bare = table()
    bare.obs = bare.obs[["section"]]
    with pytest.raises(InputError, match="'B1' has neither clusters nor labels"):
        cluster_maps.cluster_figure(bare, None, 1.0, path, title="bare")
    assert not path.exists()


@pytest.mark.parametrize("kinds", [2, 5, 9])
def test_every_cluster_has_the_colour_of_the_label_that_it_is_paired_with(
    kinds: int, tmp_path: Path, drawn: list[matplotlib.figure.Figure]
) -> None:
    layers = [f"layer {i % kinds}" for i in range(24)]
    numbers = [str((i + 1) % kinds) for i in range(24)]
    numbers[0] = str(kinds)  # one cluster more than labels
    cluster_maps.cluster_figure(
        table(label=layers, cluster_predicted=numbers, cluster_measured=numbers),
        None,
        1.0,
        tmp_path / "c.png",
        title="layers",
    )
    predicted, measured, annotation = map(key, drawn[0].axes)
    assert predicted == measured
    assert len(set(annotation.values())) == kinds
    assert cluster_maps.POSITIVE_COLOUR not in annotation.values()
    colour_of = {text.rpartition(" (")[0]: colour for text, colour in annotation.items()}
    for text, colour in predicted.items():
        label = text.rpartition(" (")[0].partition(", matched to ")[2]
        assert colour == colour_of[label] if label else colour not in colour_of.values()
    assert "23 of 24 as annotated" in drawn[0].axes[0].get_title()
