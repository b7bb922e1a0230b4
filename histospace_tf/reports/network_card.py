"""What a model card says of a published network that is the run's model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from histospace_tf.predictors import peers
from histospace_tf.reports import sentences


def what(model: Mapping[str, Any]) -> str:
    """What the network sees and gives. model: bundle.json."""
    network = model["network"]
    shown, cut = network["size"]["tile_px"], network["cut_px"]
    pixels = f"{cut} x {cut} px" + (f" (shown in {shown} x {shown})" if shown != cut else "")
    places = network["size"].get("places")
    whole = (
        f" It sees all places of a section at once, {network['pitch_um']:.0f} microns apart, and "
        f"knows {places} columns and rows."
        if places
        else ""
    )
    colours = "" if model["config"]["stain"]["method"] == "none" else "stain-normalised "
    return (
        f"Predicts the expression of {len(model['panel']['genes'])} genes, in {model['unit']}, by "
        f"{network['label']} (`{network['name']}`) from {colours}H&E tiles of {pixels} at "
        f"{network['mpp']:.3g} microns per pixel.{whole} {model['parameters']:,} parameters."
    )


def training(model: Mapping[str, Any]) -> str:
    """How it was trained, as a line of Markdown. model: bundle.json."""
    chosen = model["trained_on"]["network"]
    entry = peers.named(model["network"]["name"])
    note = entry.note_of(chosen) if entry is not None else model["network"]["label"]
    by = "fixed" if chosen.get("by") == "fixed" else f"chosen by {chosen.get('by')} on inner groups"
    epochs = sentences.count(chosen["epochs"], "epoch")
    return f"* Network: {note}. {epochs}, {by}, of {chosen['most']} at most."
