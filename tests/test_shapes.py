"""Where a prediction's values lie: frames, shapes, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from histospace_tf.slide_prediction.shapes import shapes_of
from histospace_tf.vocabulary import InputError
from made.predictions import prediction


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
