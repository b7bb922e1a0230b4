"""A slide predicted in bands, and what the prediction is written as.

A format that it is written in is a field of `OutputFiles`, which is its option, and an entry of
`formats`, which says how it is checked and written. This module is read without TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from histospace_tf.request_options import Names, OptionalPath, Options, option

if TYPE_CHECKING:
    import anndata

# HOST may be [an IPv6 address]; what follows the port is written as in TF Serving's REST paths.
_FORM = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^/\s:\[\]]+):(?P<port>\d{1,5})"
    r"(?:/(?P<model>[^/\s]+)(?:/versions/(?P<version>\d{1,18}))?)?"
)
OF_SLIDES = (
    "Places are scores of a network that learned from slides as a whole: no place was ever "
    'measured. uns["pseudo_bulk"] is its slide.'
)
GRID_STEP_UM = 100.0  # between the centres of a grid, as Visium's spots
# Of each slide's file or folder, where files of many slides lie in the folder that is named.
SLIDE_ENDINGS = {
    "maps": "",
    "heatmaps": "",
    "page": ".html",
    "geojson": ".geojson",
    "table": ".csv",
    "spatialdata": ".zarr",
}


class OutputFiles(Options):
    """Files and folders to write beside the .h5ad, in the order of writing."""

    show: Names = option(
        default=(),
        help="Genes and gene sets of maps, page, heat maps, GeoJSON: names, or the single word "
        "trusted or all.",
        flag_help="Genes and sets to draw and to measure, separated by commas, or: trusted, all.",
        unset="drawn are three that vary, measured the trusted ones",
        separator=",",
    )
    maps: OptionalPath = option(default=None, help="Folder for PNG maps.")
    page: OptionalPath = option(default=None, help=".html to look at: any gene over the slide.")
    heatmaps: OptionalPath = option(default=None, help="Folder for OME-TIFF heat maps.")
    geojson: OptionalPath = option(default=None, help="Detections with measurements, for QuPath.")
    table: OptionalPath = option(default=None, help="One row per place, as .csv or .parquet.")
    spatialdata: OptionalPath = option(
        default=None, help=".zarr of SpatialData to write, or to add to. [an extra]"
    )

    aggregate: bool = option(
        default=False,
        help="Write pseudo-bulk expression of the whole slide, OUT.bulk.csv, beside the .h5ad.",
    )

    def paths(self) -> dict[str, Path]:
        """What is to be written, by option, in the order of writing."""
        files = {each.name: getattr(self, each.name) for each in OutputFiles.listed()}
        return {name: path for name, path in files.items() if isinstance(path, Path)}


@dataclasses.dataclass(frozen=True)
class OutputFormat:
    """How one file or folder beside the .h5ad is checked and written.

    write: (table, path, force=..., and genes=... where `genes` is given) -> what was written.
    endings: that the path may have; empty for a folder of any name.
    genes: (table, files) -> the genes that it takes; None: it takes all, whatever `show` says.
    refused: (path, genes that are named) -> files that may not be there before; None: the path.
    check_installed: raises InputError where a package that it needs is absent.
    with_sets: it takes gene sets beside genes.
    """

    write: Callable[..., list[Path]]
    endings: tuple[str, ...] = ()
    genes: Callable[[anndata.AnnData, OutputFiles], list[str]] | None = None
    refused: Callable[[Path, Sequence[str]], list[Path]] | None = None
    check_installed: Callable[[], None] | None = None
    with_sets: bool = True


@functools.cache
def formats() -> dict[str, OutputFormat]:
    """Every format by its field of `OutputFiles`; their libraries load here, not for --help."""
    from histospace_tf.reports import maps
    from histospace_tf.slide_prediction import (
        output_formats,
        slide_page,
        spatial_data,
        written_files,
    )

    return {
        "maps": OutputFormat(maps.write_maps, genes=written_files.drawn, refused=maps.map_files),
        "page": OutputFormat(slide_page.write_page, endings=(".html",), genes=written_files.drawn),
        "heatmaps": OutputFormat(
            output_formats.write_heat_maps,
            genes=written_files.drawn,
            refused=output_formats.heat_map_files,
        ),
        "geojson": OutputFormat(
            output_formats.write_geojson,
            endings=(".geojson", ".json"),
            genes=written_files.measured,
        ),
        "table": OutputFormat(
            output_formats.write_table,
            endings=(".csv", ".parquet"),
            refused=output_formats.table_files,
        ),
        "spatialdata": OutputFormat(
            spatial_data.write_spatial_data,
            endings=(".zarr",),
            refused=spatial_data.replaced_folders,
            check_installed=spatial_data.check_installed,
            with_sets=False,  # obsm has them
        ),
    }


@dataclasses.dataclass(frozen=True)
class ServerAddress:
    """host_port: of gRPC. model: its name there, None for the exports' own. version: None for the
    server's choice, its newest."""

    host_port: str
    model: str | None
    version: int | None


def server_address(text: str) -> ServerAddress:
    """The address of a server in its parts.

    Raises:
        InputError: it has another form, or a port that is none.
    """
    from histospace_tf.vocabulary import InputError  # with NumPy: not when the package is imported

    address = _FORM.fullmatch(text)
    if address is None or not 0 < int(address["port"]) < 65536:
        raise InputError(
            f"`server` {text!r}: HOST:PORT, HOST:PORT/NAME or HOST:PORT/NAME/versions/N works, "
            "such as localhost:8500"
        )
    version = address["version"]
    return ServerAddress(
        f"{address['host']}:{address['port']}",
        address["model"],
        int(version) if version else None,
    )
