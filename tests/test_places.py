"""Where a prediction's values lie: frames, shapes, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from histospace_tf.slide_prediction import places
from histospace_tf.vocabulary import InputError
from made.predictions import prediction


def test_places_are_read_from_the_spatial_entry() -> None:
    found = places.of_table(prediction(mpp=0.5))
    assert (found.slide, found.size_px, found.square, found.mpp) == ("slide", 40, True, 0.5)
    assert found.image.shape == (200, 240, 3)
    assert places.of_table(prediction(mpp=None)).mpp is None
    assert not places.of_table(prediction(places="spots")).square


def test_corner_frame_is_half_a_pixel_further() -> None:
    # A pixel centre at a whole number lies half a pixel from that pixel's own top left corner.
    found = places.of_table(prediction())
    np.testing.assert_array_equal(found.corner_px, found.centres_px + 0.5)


@pytest.mark.parametrize("kind", ["grid", "spots"])
def test_polygons_are_closed_and_as_large_as_the_place(kind: str) -> None:
    found = places.of_table(prediction(places=kind))
    rings = found.polygons_px()
    np.testing.assert_array_equal(rings[:, 0], rings[:, -1])
    np.testing.assert_allclose(rings.max(axis=1), found.corner_px + 20)
    np.testing.assert_allclose(rings.min(axis=1), found.corner_px - 20)


def test_tables_that_cannot_be_placed_are_refused() -> None:
    table = prediction()
    table.uns["spatial"]["other"] = table.uns["spatial"]["slide"]
    with pytest.raises(InputError, match="2 slides \\('slide', 'other'\\)"):
        places.of_table(table)
    del table.uns["spatial"]
    with pytest.raises(InputError, match=r'no uns\["spatial"\]'):
        places.of_table(table)
    table = prediction()
    del table.uns["spatial"]["slide"]["scalefactors"]["tissue_hires_scalef"]
    with pytest.raises(InputError, match="lacks 'tissue_hires_scalef'"):
        places.of_table(table)
