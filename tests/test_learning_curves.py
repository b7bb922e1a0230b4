"""Learning curves: which trainings share a panel, and what their mean is a mean of."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from histospace_tf.reports import autoencoder_figures, learning_curves
from made.evaluations import history, ridge_history


def bold(axes: Axes, label: str) -> Line2D:
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return line


def points(line: Line2D) -> tuple[list[float], list[float]]:
    return list(np.asarray(line.get_xdata())), list(np.asarray(line.get_ydata()))


def inner(stage: str, fold: str, losses: list[float], **more: object) -> list[dict[str, object]]:
    return [
        {"stage": stage, "fold": fold, "epoch": at, "loss": loss, "val_loss": loss + 1, **more}
        for at, loss in enumerate(losses, 1)
    ]


def test_mean_of_several_trainings_ends_where_the_first_of_them_stops() -> None:
    rows = [
        *inner("flatten_inner1", "A", [4.0, 3.0, 2.0, 1.0]),
        *inner("flatten_inner2", "A", [8.0, 7.0]),  # stopped early, far above the other
        *inner("flatten_inner1", "B", [6.0, 5.0, 4.0]),  # the same stage of another fold
        *inner("flatten", "A", [3.0, 2.0], val_loss=None),
    ]
    table = pd.DataFrame(rows)
    figure = learning_curves.figure(table, learning_curves.heads(table), "a unit")
    assert figure is not None
    (loss,) = figure.axes  # there is no correlation to draw
    assert points(bold(loss, "training")) == ([1, 2], [6.0, 5.0])
    assert points(bold(loss, "validation")) == ([1, 2], [7.0, 6.0])
    assert points(bold(loss, "training, whole side")) == ([1, 2], [3.0, 2.0])
    thin = [line for line in loss.lines if line.get_linewidth() == learning_curves.THIN]
    assert sorted(len(np.asarray(line.get_xdata())) for line in thin) == [2, 2, 3, 3, 4, 4]
    assert loss.get_ylabel() == "loss (a unit)"


def test_training_and_validation_share_an_axis_and_heads_share_their_scale() -> None:
    table = history()
    figure = learning_curves.figure(table, learning_curves.complexities(table), "a unit")
    assert figure is not None
    above, below = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title(loc="left") for axes in figure.axes] == list("ABCDEF")
    assert [axes.get_title() for axes in above] == [
        "head of 1 block",
        "head of 2 blocks",
        "head of 3 blocks",
    ]
    for axes in above:
        assert [line.get_label() for line in axes.lines] == ["training", "validation"]
        assert axes.get_ylim() == above[0].get_ylim()
    table["gene_r"] = 2 * table["val_gene_r"]  # of training spots, as a study records them
    with_training = learning_curves.figure(table, learning_curves.complexities(table), "a unit")
    assert with_training is not None
    for axes in with_training.axes[3:]:
        assert points(bold(axes, "gene_r, training"))[1] == pytest.approx([0.2, 0.4, 0.6])
    for axes in below:
        assert points(bold(axes, "gene_r, validation")) == (
            [1, 2, 3],
            pytest.approx([0.1, 0.2, 0.3]),
        )
        assert points(bold(axes, "spot_r, validation")) == (
            [1, 2, 3],
            pytest.approx([0.2, 0.4, 0.6]),
        )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "training",
        "validation",
        "gene_r, validation",
        "spot_r, validation",
    ]


def test_heads_of_other_targets_have_axes_of_their_own_and_need_no_inner_groups() -> None:
    rows = [
        *inner("context", "A", [0.2, 0.1], val_loss=None, strength=100.0),  # descent from a ridge
        *inner("paper", "A", [40.0, 30.0], val_loss=None),  # a fixed number of epochs
        *inner("autoencoder", "A", [1.0]),
        *inner("head_1", "A", [1.0]),
    ]
    table = pd.DataFrame(rows)
    figure = learning_curves.figure(table, learning_curves.heads(table), "a unit", alike=False)
    assert figure is not None
    context, paper = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["context head", "paper head"]
    assert points(bold(context, "training, whole side")) == ([1, 2], [0.2, 0.1])
    assert context.get_ylim()[1] < 1 < paper.get_ylim()[0]
    more = pd.concat([table, pd.DataFrame(inner("global_inner1", "A", [1.0, 0.9], val_gene_r=0.1))])
    figure = learning_curves.figure(more, learning_curves.heads(more), "a unit", alike=False)
    assert figure is not None
    above, below = figure.axes[:3], figure.axes[3:]
    assert [axes.axison for axes in (*above, *below)] == [True] * 3 + [False, False, True]
    assert [axes.get_title(loc="left") for axes in (*above, below[2])] == list("ABCD")
    assert below[0].texts[0].get_text() == "no validation by epoch"
    assert below[2].get_ylabel() == "Pearson r (no unit)"


def test_losses_far_apart_are_drawn_on_a_logarithmic_axis() -> None:
    for last, scale in ((0.5, "linear"), (0.001, "log")):  # of training; validation is 1 above
        table = pd.DataFrame(inner("flatten_inner1", "A", [1.0, last]))
        figure = learning_curves.figure(table, learning_curves.heads(table), "a unit")
        assert figure is not None
        assert figure.axes[0].get_yscale() == scale


def test_strengths_stand_on_a_logarithmic_axis_with_the_chosen_one_marked() -> None:
    table = ridge_history()
    # Epochs at the chosen strength follow, as a head does that Keras trains from the ridge.
    more = inner("pooled", "", [3.0, 2.0], val_loss=None, strength=100.0)
    for rows in (table, pd.concat([table, pd.DataFrame(more)], ignore_index=True)):
        figure = learning_curves.strengths(rows, learning_curves.heads(rows))
        assert figure is not None
        (axes,) = figure.axes
        assert axes.get_xscale() == "log"
        for label, mean in (("gene_r, validation", 0.285), ("spot_r, validation", 0.485)):
            x, y = points(bold(axes, label))
            assert x == [10, 100, 1000]
            np.testing.assert_allclose(y, mean)
        assert points(bold(axes, "chosen"))[0] == [100, 100]
    figure = learning_curves.figure(rows, learning_curves.heads(rows), "a unit")
    assert figure is not None
    assert points(bold(figure.axes[0], "training, whole side")) == ([1, 2], [3.0, 2.0])


def test_nothing_is_drawn_of_what_history_does_not_hold() -> None:
    table = ridge_history()
    families = learning_curves.heads(table)
    assert learning_curves.figure(table, families, "a unit") is None
    assert learning_curves.strengths(history().drop(columns="strength"), families) is None
    assert autoencoder_figures.learning(table, {}, {}) is None


def test_three_autoencoders_have_their_tiles_and_error_above_their_curves() -> None:
    random = np.random.default_rng(0)
    tiles = random.integers(0, 255, (4, 8, 8, 3), np.uint8)
    pictures = {"tiles": tiles, **{f"variant_{v}": 255 - tiles for v in (1, 2, 3)}}
    facts = {"1": {"parameters": 12345, "validation_mse": 0.0123}}
    figure = autoencoder_figures.learning(history(), pictures, facts)
    assert figure is not None
    above, below = figure.subfigs
    headings = [block.get_suptitle() for block in above.subfigs]
    assert "12,345 parameters, validation MSE 0.0123" in headings[0]
    own = np.square((255.0 - 2.0 * tiles) / 255).mean()
    assert f"MSE {own:.4f} of the tiles kept" in headings[1]
    assert [axes.get_title(loc="left") for axes in below.axes] == list("DEF")
    shown = [image.get_array() for axes in above.subfigs[2].axes for image in axes.images]
    np.testing.assert_array_equal(shown, [*tiles[:3], *(255 - tiles)[:3]])


def test_reconstructions_show_each_difference_with_its_error_on_one_scale() -> None:
    tiles = np.full((2, 8, 8, 3), 100, np.uint8)
    worse = tiles.copy()
    worse[1] = 151  # 51 of 255 grey levels away: 0.2, squared 0.04
    figure = autoencoder_figures.reconstructions(
        {"tiles": tiles, "variant_1": worse, "variant_2": tiles}
    )
    panels = figure.axes[:10]  # input, then output and difference of two variants
    assert [axes.get_xlabel() for axes in panels[4:6]] == ["0.0000", "0.0400"]
    assert "MSE 0.0200" in panels[2].get_ylabel()
    differences = [axes.images[0] for axes in (*panels[4:6], *panels[8:10])]
    assert len({image.get_clim() for image in differences}) == 1
    np.testing.assert_allclose(np.asarray(differences[1].get_array()), 0.2, rtol=1e-6)


def test_a_single_epoch_is_no_curve() -> None:
    one = pd.DataFrame(inner("flatten_inner1", "A", [4.0]) + inner("flatten", "A", [3.0]))
    assert learning_curves.figure(one, learning_curves.heads(one), "a unit") is None
    several = pd.DataFrame([*inner("flatten", "A", [3.0]), *inner("pooled", "A", [3.0, 2.0])])
    figure = learning_curves.figure(several, learning_curves.heads(several), "a unit")
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["pooled head"]
    tried = pd.DataFrame([{"stage": "autoencoder_1", "epoch": 1, "loss": 0.1, "val_loss": 0.1}])
    tiles = np.zeros((2, 8, 8, 3), np.uint8)
    assert autoencoder_figures.learning(tried, {"tiles": tiles, "variant_1": tiles}, {}) is None
    strength = pd.DataFrame({"stage": ["pooled_inner1"], "strength": [10.0], "val_gene_r": [0.2]})
    strength["epoch"] = strength["loss"] = np.nan
    assert learning_curves.strengths(strength, learning_curves.heads(strength)) is None
