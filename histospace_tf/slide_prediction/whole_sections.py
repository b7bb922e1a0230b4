"""A slide predicted by a network that sees all places of a section at once.

Columns and rows are the places' in distances of neighbouring ones, as the network learned them
from spots. A slide of more columns or rows than it knows is predicted in windows that overlap
(`section_networks.windows`): each as if it were a section, and a place in several by their mean.
Nothing is kept for `resume`: it begins at the start.
"""

from __future__ import annotations

import numpy as np

from histospace_tf.data_pipelines import datasets
from histospace_tf.network_model import NetworkModel
from histospace_tf.outputs import say
from histospace_tf.predictors import run_network, section_networks

FAR_APART = 0.25  # relative difference of distances above which it is said


def predicted(
    model: NetworkModel,
    tiles: datasets.StainedTiles,
    centres_px: np.ndarray,
    *,
    mpp: float | None,
) -> tuple[np.ndarray, int]:
    """Expression at all places of a slide.

    Args:
        model: of a network of whole sections.
        tiles: n of them, as the network takes them.
        centres_px: (n, 2) full-resolution pixels, x first; n at least 1.
        mpp: microns per pixel of the slide.
    Returns:
        (n, g) float32 in the panel's unit; how many windows it was predicted in.
    """
    fitted = run_network.fitted(model)
    entry = fitted.entry
    assert isinstance(entry, section_networks.SectionNetwork)
    if mpp is not None and len(centres_px) > 1:
        _say_distance(model, section_networks.pitch_px(centres_px) * mpp)
    positions = section_networks.grid_positions(centres_px)
    places = fitted.recipe.size.places
    windows = len(section_networks.windows(positions, places))
    if windows > 1:
        columns, rows = positions.max(axis=0) + 1
        say(
            f"{model.network.label} knows {places} columns and rows, and the slide has "
            f"{columns} x {rows}: predicted in {windows} windows that overlap, each as if it were "
            "a section."
        )
    every = np.arange(len(centres_px))
    values = entry.predicted_at(fitted.network, fitted.recipe, [tiles], every, positions)
    return (values * fitted.scale).astype(np.float32), windows


def _say_distance(model: NetworkModel, pitch_um: float) -> None:
    learned = model.network.pitch_um
    if abs(pitch_um / learned - 1) > FAR_APART:
        say(
            f"Warning: {model.network.label} learned from spots {learned:.0f} microns apart, and "
            f"these places are {pitch_um:.0f} apart: its columns and rows mean other distances here"
        )
