"""A slide predicted in bands, and what the prediction is written as."""

from __future__ import annotations

from pathlib import Path

from histospace_tf.request_options import Names, OptionalPath, Options, option

GRID_STEP_UM = 100.0  # between the centres of a grid, as Visium's spots


class OutputFiles(Options):
    """Files and folders to write beside the .h5ad, in the order of writing."""

    show: Names = option(
        default=(),
        help="Genes of maps, heat maps and GeoJSON: names, or the single word trusted or all.",
        flag_help="Genes to draw and to measure, separated by commas, or: trusted, all.",
        unset="drawn are three that vary, measured the trusted ones",
        separator=",",
    )
    maps: OptionalPath = option(default=None, help="Folder for PNG maps.")
    heatmaps: OptionalPath = option(default=None, help="Folder for OME-TIFF heat maps.")
    geojson: OptionalPath = option(default=None, help="Detections with measurements, for QuPath.")
    table: OptionalPath = option(default=None, help="One row per place, as .csv or .parquet.")
    spatialdata: OptionalPath = option(
        default=None, help=".zarr of SpatialData to write, or to add to. [an extra]"
    )

    def paths(self) -> dict[str, Path]:
        """What is to be written, by option, in the order of writing."""
        files = {each.name: getattr(self, each.name) for each in OutputFiles.listed()}
        return {name: path for name, path in files.items() if isinstance(path, Path)}
