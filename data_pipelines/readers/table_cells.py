"""Cells of tables that users write: paths of files beside the table, and microns per pixel."""

from __future__ import annotations

from pathlib import Path

from histospace_tf.data_pipelines import slides, text_tables
from histospace_tf.vocabulary import InputError


def place(folder: Path, cell: str) -> Path:
    """The path in a cell; with the slashes of Windows where it does not exist otherwise."""
    path = folder / cell
    return path if path.exists() else folder / cell.replace("\\", "/")


def mpp(cell: str, where: str) -> float | None:
    """Microns per pixel in a cell; None for an empty one.

    Args:
        where: the table, or its line, for the message.
    Raises:
        InputError: no number, or one that no slide has.
    """
    if not cell:
        return None
    value = text_tables.number(cell, decimal=",") or 0.0
    if not slides.is_plausible(value):
        raise InputError(f"{where} has mpp {cell!r}; microns per pixel, such as 0.5, are needed")
    return value
