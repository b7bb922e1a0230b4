"""Maps: colour limits, scale bars, and pictures written whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from histospace_tf.reports import maps
from histospace_tf.vocabulary import InputError
from made.pictures import read_picture
from made.predictions import prediction
from made.tissue import GENES


def axes() -> Axes:
    return Figure().subplots()


def scale_bars(drawn: Axes) -> list[AnchoredSizeBar]:
    return [artist for artist in drawn.artists if isinstance(artist, AnchoredSizeBar)]


def label_and_length_px(bar: AnchoredSizeBar) -> tuple[str, float]:
    (line,) = bar.size_bar.get_children()
    return bar.txt_label.get_text(), line.get_width()


def test_colour_limits_leave_the_extremes_out() -> None:
    values = np.arange(101.0)
    values[0], values[-1] = -1e6, 1e6
    assert maps.colour_limits(values) == (1, 99)


@pytest.mark.parametrize("value", [0.0, -2.0, 7.5])
def test_colour_limits_of_equal_values_have_a_width(value: float) -> None:
    assert maps.colour_limits(np.full(5, value)) == (value - 0.5, value + 0.5)


@pytest.mark.parametrize(
    ("width_px", "mpp", "label", "length_um"),
    [
        (1000, 1.0, "200 µm", 200),
        (1000, 0.99, "100 µm", 100),
        (1000, 0.5, "100 µm", 100),
        (1000, 0.26, "50 µm", 50),
        (10_000, 0.69, "1 mm", 1000),
        (30_000, 0.5, "2 mm", 2000),
        (40, 0.25, "2 µm", 2),
    ],
)
def test_scale_bar_is_round_and_at_most_a_fifth_of_the_width(
    width_px: int, mpp: float, label: str, length_um: float
) -> None:
    drawn = axes()
    overview = np.zeros((width_px // 20, width_px // 10, 3), np.uint8)
    maps.show_image(drawn, overview, 10.0, mpp)
    (bar,) = scale_bars(drawn)
    shown, length_px = label_and_length_px(bar)
    assert shown == label
    assert length_px == pytest.approx(length_um / mpp)
    assert length_px <= width_px / 5 + 1e-6


def test_image_lies_in_full_resolution_coordinates_y_down() -> None:
    drawn = axes()
    maps.show_image(drawn, np.zeros((20, 30, 3), np.uint8), 4.0, None)
    assert drawn.get_xlim() == (0, 120)
    assert drawn.get_ylim() == (80, 0)


def test_no_scale_bar_without_a_scale_or_on_a_faded_image() -> None:
    for mpp, faded in ((None, False), (0.5, True)):
        drawn = axes()
        maps.show_image(drawn, np.zeros((20, 30, 3), np.uint8), 1.0, mpp, faded=faded)
        assert not scale_bars(drawn)


def test_unknown_genes_are_refused_by_name() -> None:
    maps.check_genes(["ACTB"], GENES)
    with pytest.raises(InputError, match="does not predict 'NOSUCH'; its 4 genes are 'ERBB2'"):
        maps.check_genes(["ACTB", "NOSUCH"], GENES)
    with pytest.raises(InputError, match="nearest to 'HER2': 'ERBB2'; nearest to 'GNA': 'GNAS'"):
        maps.check_genes(["HER2", "GNA"], GENES)


@pytest.mark.slow
@pytest.mark.parametrize("places", ["grid", "spots"])
@pytest.mark.parametrize("mpp", [0.69, None])
def test_maps_are_pictures_a_gene(tmp_path: Path, places: str, mpp: float | None) -> None:
    written = maps.write_maps(
        prediction(places=places, mpp=mpp), tmp_path / "maps", genes=["GNAS", "ACTB"]
    )
    assert [path.name for path in written] == ["GNAS.png", "ACTB.png"]
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["ACTB.png", "GNAS.png"]
    pictures = [read_picture(path) for path in written]
    for picture in pictures:
        assert min(picture.shape[:2]) > 300
        assert picture.std() > 10
    assert not np.array_equal(pictures[0], pictures[1])


def test_title_says_how_far_a_gene_is_trusted() -> None:
    table = prediction()
    assert maps._trust_words(table, "GNAS") == ""
    table.var["trust"] = ["yes", "weak", "no", "unknown"]
    table.var["gene_r"] = [0.5, 0.25, -0.1, np.nan]
    assert maps._trust_words(table, "GNAS") == " (trust: weak, held-out r 0.25)"
    assert maps._trust_words(table, GENES[3]) == " (trust: unknown)"


@pytest.mark.parametrize(
    ("values", "arrows"),
    [([1, 2], "neither"), ([0, 2], "min"), ([1, 3], "max"), ([0, 3], "both")],
)
def test_colour_bar_has_arrows_where_values_lie_beyond_it(values: list[float], arrows: str) -> None:
    assert maps._beyond(np.array(values), (1, 2)) == arrows


def test_a_gene_with_a_slash_has_a_file_of_its_own(tmp_path: Path) -> None:
    table = prediction()
    table.var_names = ["A/B", *GENES[1:]]
    assert [path.name for path in maps.write_maps(table, tmp_path, genes=["A/B"])] == ["A_B.png"]


def test_maps_are_refused_before_any_is_drawn_and_replaced_by_force(tmp_path: Path) -> None:
    table = prediction()
    (tmp_path / "ACTB.png").write_bytes(b"older")
    with pytest.raises(InputError, match=r"ACTB.png' exists already.*`force`"):
        maps.write_maps(table, tmp_path, genes=["GNAS", "ACTB"])
    assert [path.name for path in tmp_path.iterdir()] == ["ACTB.png"]
    assert (tmp_path / "ACTB.png").read_bytes() == b"older"
    with pytest.raises(InputError, match="NOSUCH"):
        maps.write_maps(table, tmp_path, genes=["GNAS", "NOSUCH"], force=True)
    maps.write_maps(table, tmp_path, genes=["ACTB"], force=True)
    assert read_picture(tmp_path / "ACTB.png") is not None


def test_a_map_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(_: Figure, path: Path, **__: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="No space"):
        maps.write_maps(prediction(), tmp_path, genes=["ACTB"])
    assert list(tmp_path.iterdir()) == []


def test_squares_and_discs_have_their_true_size() -> None:
    centres = np.array([[10.0, 20.0], [50.0, 60.0]])
    square = maps.draw_spots(axes(), centres, np.array([0.0, 1.0]), 8.0, (0, 1), square=True)
    np.testing.assert_array_equal(
        square.get_paths()[1].get_extents().get_points(), centres[1] + [[-4], [4]]
    )
    disc = maps.draw_spots(axes(), centres, np.array([0.0, 1.0]), 8.0, (0, 1))
    np.testing.assert_array_equal(disc.get_offsets(), centres)
    assert isinstance(disc, EllipseCollection)
    np.testing.assert_array_equal(disc.get_widths(), [8, 8])
    assert disc.get_clim() == (0, 1)


@pytest.mark.parametrize(
    ("diameter_um", "mpp", "wanted"),
    [(100.0, 0.5, 200.0), (None, 0.5, 20.0), (100.0, None, 20.0)],
)
def test_spot_diameter_comes_from_microns_or_from_the_distance_of_spots(
    diameter_um: float | None, mpp: float | None, wanted: float
) -> None:
    centres = np.array([[0.0, 0.0], [40.0, 0.0], [80.0, 0.0]])
    assert maps.spot_diameter_px(diameter_um, mpp, centres) == wanted


def test_distance_of_the_nearest() -> None:
    assert maps.nearest_distance_px(np.zeros((1, 2))) is None
    assert maps.nearest_distance_px(np.array([[0.0, 0], [3, 4], [6, 8]])) == 5


def test_range_with_a_margin() -> None:
    assert maps.around(np.array([3.0, 9.0, 5.0]), 2) == (1, 11)
