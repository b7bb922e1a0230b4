"""An H&E image and a run -> predicted expression as AnnData.

Expression is predicted for the tiles of a tissue grid, or around given spots. Slide context comes
from the slide's own tissue tiles and from neighbours within a distance in microns, so given spots
and a grid agree.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

import histospace_tf
from histospace_tf import bundle, features, gene_table, maps, outputs, preparing, serving_client
from histospace_tf.bundle import Bundle
from histospace_tf.data_pipelines import datasets, slides, tiles
from histospace_tf.outputs import say
from histospace_tf.paired import neighbour_radius_px
from histospace_tf.vocabulary import InputError, StainReference, named

GRID_STEP_UM = 100.0  # as Visium's spots
# Column pairs that a spot table may state its centres in: full-resolution pixels, x first.
CENTRE_COLUMNS = (("pixel_x", "pixel_y"), ("x_px", "y_px"), ("x", "y"))
NAME_COLUMNS = ("spot", "name", "barcode", "id")


@dataclasses.dataclass(frozen=True, eq=False)
class PredictResult:
    """What was predicted and written."""

    table: anndata.AnnData
    out: Path
    maps: tuple[Path, ...]

    def summary(self) -> str:
        """What was written and what to do with it, as text."""
        lines = [
            f"{self.table.n_obs} places x {self.table.n_vars} genes, "
            f"in {self.table.var['unit'].iloc[0]}",
            self._trust(),
            f"  {self.out}",
            *(f"  {path}" for path in self.maps),
            "",
            f'Next: scanpy.pl.spatial(anndata.read_h5ad("{self.out}"), color="'
            f'{self.table.var_names[0]}")',
        ]
        return "\n".join(lines)

    def _trust(self) -> str:
        if "trust" not in self.table.var:
            return "How far each gene can be trusted is not known: the run has no genes.csv."
        times = self.table.var["trust"].value_counts()
        shares = ", ".join(f"{word} {times.get(word, 0)}" for word in gene_table.TRUST)
        return (
            f"{times.get('yes', 0)} of {self.table.n_vars} genes are trusted, from the run's "
            f'held-out spots (var["trust"]: {shares})'
        )


def predict(
    slide: Path,
    run: Path,
    out: Path,
    *,
    spots: Path | None = None,
    mpp: float | None = None,
    step_um: float | None = None,
    show: Sequence[str] = (),
    maps_folder: Path | None = None,
    server: str | None = None,
    force: bool = False,
) -> PredictResult:
    """Predicts expression on a new image.

    Args:
        slide: H&E image or whole-slide file.
        run: run folder of `fit`, or its bundle folder.
        out: .h5ad to write.
        spots: table (CSV or TSV) of places to predict at, in full-resolution pixels; None: the
            tiles of a grid over the tissue.
        mpp: microns per pixel of the image, where the file does not say.
        step_um: distance between the grid's centres; None: GRID_STEP_UM, or one tile where the
            image's scale is unknown.
        show: genes to draw into `maps_folder`; empty: the three that vary most.
        maps_folder: folder for PNG maps; None: none are drawn.
        server: HOST:PORT of TF Serving with the run's SavedModel, which then does the network's
            part; None: this machine does.
        force: replace finished outputs.
    Returns:
        `predict_slide`'s table as written. Where the run has a genes.csv, var holds how well each
        gene was predicted on its held-out spots: trust ("yes", "weak", "no"; "unknown" for a gene
        without) and gene_r (NaN without).
    Raises:
        InputError: an unreadable image, an unknown scale, no tissue, an unknown gene, ...
    """
    if out.suffix != ".h5ad":
        raise InputError(f"--out {str(out)!r}: a file name that ends in .h5ad is needed")
    outputs.refuse_finished(out, force=force)
    if show and maps_folder is None:
        raise InputError("--show names genes to draw; --maps DIR says where to")
    model = bundle.load(run)
    trust = _trust(run, model.panel.genes)
    maps.check_genes(show, model.panel.genes)
    if maps_folder is not None:
        # Which genes vary most is known only at the end, so the whole folder has to be free.
        for path in [maps.map_file(maps_folder, gene) for gene in show] or [maps_folder]:
            outputs.refuse_finished(path, force=force)
    with contextlib.ExitStack() as stack:
        image = stack.enter_context(slides.open_slide(slide, mpp=mpp))
        if server is not None:
            model = stack.enter_context(serving_client.connected(server, model))
        table = predict_slide(image, model, spots=spots, step_um=step_um)
    table.uns["histospace_tf"]["model"] = str(run)
    if trust is not None:
        for column in trust:
            table.var[column] = trust[column].to_numpy()
    with outputs.whole_file(out) as draft:
        outputs.write_h5ad(table, draft)
    drawn: list[Path] = []
    if maps_folder is not None:
        if not show:
            order = np.argsort(-np.asarray(table.X).std(axis=0), kind="stable")
            show = [str(table.var_names[i]) for i in order[:3]]
        drawn = maps.write_maps(table, show, maps_folder, force=force)
    return PredictResult(table, out, tuple(drawn))


def predict_slide(
    slide: slides.SlideImage,
    model: Bundle,
    *,
    spots: Path | None = None,
    step_um: float | None = None,
) -> anndata.AnnData:
    """`predict` on an open slide, nothing written.

    Returns:
        X (n, g) float32 in var["unit"]; obsm["spatial"] (n, 2) full-resolution pixels, x first;
        uns["spatial"] an overview as scanpy and squidpy draw it; uns["histospace_tf"] provenance.
    """
    config = model.config
    if config.tiles.mpp is not None and slide.mpp is None:
        raise InputError(
            f"{slide.path}: the file does not say its microns per pixel, and the model works at "
            f"{config.tiles.mpp:g}; give them with --mpp"
        )
    stains = preparing.slide_stains(slide, config)
    cut: dict[str, Any] = {"tile_px": config.tiles.tile_px, "mpp": config.tiles.mpp}
    side = tiles.slide_px(slide, **cut)
    grid = tiles.grid_centres(slide, min_tissue=config.tiles.min_tissue, **cut)
    if spots is not None:
        centres, names = read_places(spots, slide)
        pitch = maps.nearest_distance_px(centres) or float(side)
    else:
        if slide.mpp is None and step_um is not None:
            raise InputError(f"{slide.path}: --step-um needs microns per pixel; give --mpp")
        pitch = (
            float(side)
            if slide.mpp is None
            else (GRID_STEP_UM if step_um is None else step_um) / slide.mpp
        )
        centres = tiles.grid_centres(
            slide, min_tissue=config.tiles.min_tissue, step_px=pitch, **cut
        )
        names = [f"tile{i}" for i in range(len(centres))]
    if not len(centres):
        raise InputError(
            f"{slide.path}: no tissue found in {slide.width_px} x {slide.height_px} px (tiles of "
            f"{side} px, of which {config.tiles.min_tissue:.0%} must be tissue)"
        )
    with tempfile.TemporaryDirectory(prefix="histospace_tf_") as scratch:
        kept = features.tile_features(
            model.trunk,
            [_lazily(slide, centres, model, stains)],
            symmetries=config.regressor.symmetries,
            label="Predicting",
            store=Path(scratch) / "features.npy",
        )
        inputs = {"features": kept}
        if model.needs_context:
            chosen = preparing.spread(grid, config.context.slide_tiles, seed=config.seed)
            if not len(chosen):
                say(f"{slide.path}: no tissue tile; slide statistics come from the given places.")
                chosen = preparing.spread(centres, config.context.slide_tiles, seed=config.seed)
            whole = features.tile_features(
                model.trunk,
                [_lazily(slide, chosen, model, stains)],
                symmetries=1,
                label="Slide statistics",
            )
            inputs = features.context_inputs(
                kept,
                centres,
                features.slide_statistics(whole[:, 0]),
                radius_px=neighbour_radius_px(slide.mpp, pitch, config),
            )
        expression = model.panel.to_unit(features.predicted(model.head, inputs))
        del inputs, kept
    table = anndata.AnnData(
        X=expression,
        obs=pd.DataFrame(index=names),
        var=pd.DataFrame({"unit": bundle.unit(model.panel)}, index=list(model.panel.genes)),
        obsm={"spatial": np.asarray(centres, np.float64)},
    )
    places = "grid" if spots is None else "spots"
    overview, scale = slide.overview(2000)
    drawn_px = pitch if places == "grid" else pitch / 2
    metadata: dict[str, str | float] = {"source_image": slide.path.name, "places": places}
    if slide.mpp is not None:
        metadata["mpp"] = slide.mpp
    table.uns["spatial"] = {
        slide.path.stem: {
            "images": {"hires": overview},
            "scalefactors": {
                "tissue_hires_scalef": 1.0 / scale,
                "spot_diameter_fullres": drawn_px,
            },
            "metadata": metadata,
        }
    }
    table.uns["histospace_tf"] = {
        "version": histospace_tf.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "unit": bundle.unit(model.panel),
        "preset": config.preset,
        "architecture": config.regressor.architecture,
        "tile_px": config.tiles.tile_px,
        "tile_mpp": config.tiles.mpp if config.tiles.mpp is not None else "the image's own",
        "trained_on_sections": list(model.trained_on.get("sections", [])),
        "trained_on_simulated_tissue": bool(model.trained_on.get("simulated", False)),
    }
    return table


def _trust(run: Path, genes: Sequence[str]) -> pd.DataFrame | None:
    """The run's own genes.csv on `genes`; None where it has none. `run` may be its bundle."""
    folder = run.resolve().parent if (run / "bundle.json").is_file() else run
    path = folder / "genes.csv"
    return gene_table.trust_of(genes, path) if path.is_file() else None


@dataclasses.dataclass(frozen=True, eq=False)
class CutWhenAsked:
    """Tiles of a slide that pass for an array and are cut when rows of it are asked for."""

    slide: slides.SlideImage
    centres: np.ndarray
    tile_px: int
    mpp: float | None
    border: str

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.centres), self.tile_px, self.tile_px, 3)

    def __len__(self) -> int:
        return len(self.centres)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        cut, _ = tiles.cut_tiles(
            self.slide,
            self.centres[rows],
            tile_px=self.tile_px,
            mpp=self.mpp,
            border=self.border,
        )
        return cut


def _lazily(
    slide: slides.SlideImage, centres: np.ndarray, model: Bundle, stains: StainReference
) -> datasets.StainedTiles:
    settings = model.config.tiles
    # Places that were asked for are never dropped: "drop" is for training.
    border = "reflect" if settings.border == "drop" else settings.border
    cut = CutWhenAsked(slide, centres, settings.tile_px, settings.mpp, border)
    return preparing.stained(cut, stains, model.reference)


def read_places(path: Path, slide: slides.SlideImage) -> tuple[np.ndarray, list[str]]:
    """Centres and names from a table with a header line, separated by commas, tabs or semicolons.

    Args:
        path: columns pixel_x and pixel_y (or x_px and y_px, or x and y), in full-resolution pixels;
            names in a column spot, name, barcode or id, else numbered.
        slide: that they must lie on.
    Returns:
        (n, 2) float64, x first, and n unique names.
    Raises:
        InputError: no such file or columns, a value that is no number, a spot off the image.
    """
    try:
        table = pd.read_csv(path, sep=None, engine="python", dtype=str)
    except FileNotFoundError:
        raise InputError(f"spot table {str(path)!r} does not exist") from None
    except (OSError, UnicodeDecodeError, ValueError, pd.errors.ParserError) as error:
        raise InputError(f"spot table {str(path)!r} cannot be read: {error}") from None
    by_name = {str(column).strip().lower(): column for column in table.columns}
    pair = next((p for p in CENTRE_COLUMNS if p[0] in by_name and p[1] in by_name), None)
    if pair is None or not len(table):
        wanted = " or ".join(f"{x} and {y}" for x, y in CENTRE_COLUMNS)
        raise InputError(
            f"spot table {str(path)!r}: {len(table)} rows with columns "
            f"{named([str(c) for c in table.columns], 8)}; rows with columns {wanted} "
            "(full-resolution pixels) are needed"
        )
    columns = [pd.to_numeric(table[by_name[name]], errors="coerce") for name in pair]
    centres = np.stack([np.asarray(column, np.float64) for column in columns], axis=1)
    named_by = next((by_name[name] for name in NAME_COLUMNS if name in by_name), None)
    names = [f"spot{i}" for i in range(len(table))]
    if named_by is not None:
        names = [str(name) for name in table[named_by]]
    if len(set(names)) < len(names):
        raise InputError(f"spot table {str(path)!r}: names in {named_by!r} are not unique")
    broken = ~np.isfinite(centres).all(axis=1)
    if broken.any():
        raise InputError(
            f"spot table {str(path)!r}: {broken.sum()} of {len(names)} rows (first: "
            f"{names[int(np.argmax(broken))]!r}) have no number in {pair[0]} or {pair[1]}"
        )
    size = np.array([slide.width_px, slide.height_px])
    off = ((centres < 0) | (centres > size - 1)).any(axis=1)
    if off.any():
        raise InputError(
            f"spot table {str(path)!r}: {off.sum()} of {len(names)} spots lie outside the "
            f"{slide.width_px} x {slide.height_px} px image (first: "
            f"{names[int(np.argmax(off))]!r}). Are the coordinates full-resolution pixels, x first?"
        )
    return centres, names
