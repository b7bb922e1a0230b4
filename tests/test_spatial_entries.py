"""uns["spatial"]: what scanpy and squidpy draw, for predictions and for a run's held-out spots."""

from __future__ import annotations

from pathlib import Path

import anndata
import matplotlib
import numpy as np
import pandas as pd
import pytest

from histospace_tf import outputs
from histospace_tf.data_pipelines import slides
from histospace_tf.slide_prediction import spatial_entries
from histospace_tf.slide_prediction.spatial_entries import shapes_of
from histospace_tf.vocabulary import InputError, Section
from made.pictures import overview_of
from made.predictions import prediction
from made.tissue import section

matplotlib.use("Agg")
GENE = "GNAS"


def held_out(sections: list[Section]) -> anndata.AnnData:
    """Made predictions on `sections`, as `held_out.joined` gives them."""
    names = [section.name for section in sections for _ in section.spots.names]
    centres = np.concatenate([section.spots.centres_px for section in sections])
    genes = list(sections[0].spots.genes)
    values = np.random.default_rng(0).random((len(names), len(genes))).astype(np.float32)
    return anndata.AnnData(
        X=values,
        obs=pd.DataFrame({"section": names}, index=[f"{n}_{i}" for i, n in enumerate(names)]),
        var=pd.DataFrame({"unit": "some unit"}, index=genes),
        obsm={"spatial": centres},
    )


def read_again(table: anndata.AnnData, folder: Path) -> anndata.AnnData:
    outputs.write_h5ad(table, folder / "a.h5ad")
    return anndata.read_h5ad(folder / "a.h5ad")


def drawn_places(axes: matplotlib.axes.Axes) -> np.ndarray:
    """Centres of what stands over the image, in the image's pixels."""
    (marks,) = axes.collections
    offsets = np.asarray(marks.get_offsets())
    if len(offsets) > 1:
        return offsets
    boxes = [path.get_extents() for path in marks.get_paths()]
    return np.array([(box.x0 + box.x1, box.y0 + box.y1) for box in boxes]) / 2


@pytest.mark.parametrize("kind", ["grid", "spots"])
def test_scanpy_draws_a_prediction_at_its_places(tmp_path: Path, kind: str) -> None:
    import scanpy

    table = prediction(places=kind)
    table.uns["spatial"]["slide"]["scalefactors"]["tissue_hires_scalef"] = 0.5
    table = read_again(table, tmp_path)
    (axes,) = scanpy.pl.spatial(table, color=GENE, sort_order=False, show=False)
    np.testing.assert_allclose(drawn_places(axes), table.obsm["spatial"] / 2)
    np.testing.assert_allclose(axes.collections[0].get_array(), table[:, GENE].X.ravel())
    assert axes.images[0].get_array().shape[:2] == (200, 240)


@pytest.mark.parametrize("kind", ["grid", "spots"])
def test_squidpy_draws_a_prediction_at_its_places(tmp_path: Path, kind: str) -> None:
    import squidpy

    table = prediction(places=kind)
    table.uns["spatial"]["slide"]["scalefactors"]["tissue_hires_scalef"] = 0.5
    table = read_again(table, tmp_path)
    shape = "square" if kind == "grid" else "circle"
    axes = squidpy.pl.spatial_scatter(table, color=GENE, shape=shape, return_ax=True)
    np.testing.assert_allclose(drawn_places(axes), table.obsm["spatial"] / 2)
    assert axes.images[0].get_array().shape[:2] == (200, 240)


def test_both_draw_held_out_sections(tmp_path: Path) -> None:
    import scanpy
    import squidpy

    sections = [section(name, "A", folder=tmp_path, seed=i) for i, name in enumerate("PQ")]
    table = read_again(
        spatial_entries.with_images(held_out(sections), sections, overview_of), tmp_path
    )
    panels = squidpy.pl.spatial_scatter(table, color=GENE, library_key="section", return_ax=True)
    assert len(panels) == 2
    one = table[table.obs["section"] == "Q"]
    (axes,) = scanpy.pl.spatial(one, color=GENE, library_id="Q", sort_order=False, show=False)
    for panel in (*panels, axes):
        np.testing.assert_allclose(drawn_places(panel), sections[0].spots.centres_px)
        assert len(panel.images) == 1


def test_entry_has_scale_size_and_what_is_known(tmp_path: Path) -> None:
    made = section("P", "A", folder=tmp_path)
    assert made.image is not None
    for mpp in (0.5, None):
        with slides.open_slide(made.image, mpp=mpp) as slide:
            overview = slides.Overview(*slide.overview(120), slide.mpp)
        entry = spatial_entries.entry(made.image, overview, kind="grid", size_px=33.0)
        assert entry["images"]["hires"].shape == (100, 120, 3)
        assert entry["scalefactors"] == {"tissue_hires_scalef": 0.5, "spot_diameter_fullres": 33.0}
        assert entry["metadata"].get("mpp") == mpp
        assert entry["metadata"]["source_image"] == "P.png"


def test_sections_without_an_image_or_a_spot_have_no_entry(tmp_path: Path) -> None:
    sections = [section("P", "A", folder=tmp_path), section("Q", "A")]
    table = held_out(sections)
    other = section("R", "A", folder=tmp_path)
    found = spatial_entries.with_images(table, [*sections, other], overview_of)
    assert list(found.uns["spatial"]) == ["P"]
    assert found.uns["spatial"]["P"]["scalefactors"]["spot_diameter_fullres"] == 20
    assert "spatial" not in table.uns


def test_places_are_read_from_the_spatial_entry() -> None:
    shapes = shapes_of(prediction(mpp=0.5))
    assert (shapes.slide, shapes.size_px, shapes.square, shapes.mpp) == ("slide", 40, True, 0.5)
    assert shapes.image.shape == (200, 240, 3)
    assert shapes_of(prediction(mpp=None)).mpp is None
    assert not shapes_of(prediction(places="spots")).square


def test_corner_frame_is_half_a_pixel_further() -> None:
    # A pixel centre at a whole number lies half a pixel from that pixel's own top left corner.
    shapes = shapes_of(prediction())
    np.testing.assert_array_equal(shapes.corner_px, shapes.centres_px + 0.5)


@pytest.mark.parametrize("kind", ["grid", "spots"])
def test_polygons_are_closed_and_as_large_as_the_place(kind: str) -> None:
    shapes = shapes_of(prediction(places=kind))
    rings = shapes.polygons_px()
    np.testing.assert_array_equal(rings[:, 0], rings[:, -1])
    np.testing.assert_allclose(rings.max(axis=1), shapes.corner_px + 20)
    np.testing.assert_allclose(rings.min(axis=1), shapes.corner_px - 20)


def test_tables_that_cannot_be_placed_are_refused() -> None:
    table = prediction()
    table.uns["spatial"]["other"] = table.uns["spatial"]["slide"]
    with pytest.raises(InputError, match="2 slides \\('slide', 'other'\\)"):
        shapes_of(table)
    del table.uns["spatial"]
    with pytest.raises(InputError, match=r'no uns\["spatial"\]'):
        shapes_of(table)
    table = prediction()
    del table.uns["spatial"]["slide"]["scalefactors"]["tissue_hires_scalef"]
    with pytest.raises(InputError, match="lacks 'tissue_hires_scalef'"):
        shapes_of(table)
