"""The drawn steps of stain normalisation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from histospace_tf.cohort import preparing
from histospace_tf.data_pipelines import recolouring, slides, stain
from histospace_tf.data_pipelines.slides import white_field
from histospace_tf.data_pipelines.slides.tissue import tissue_mask
from histospace_tf.reports import stain_figure, stain_steps
from histospace_tf.vocabulary import STAIN_METHODS, InputError, StainReference
from made.configs import tiny_config
from made.lighting import made_slide
from made.pictures import read_picture
from made.tissue import section, spot_table, write_picture


def prepared(folder: Path, *names: str, method: str = "macenko") -> list[preparing.PreparedSection]:
    (folder / "work").mkdir()
    config = tiny_config(tiles__tile_px=48, tiles__mpp=None, stain__method=method)
    return [
        preparing.prepare_section(
            section(name, name[0], folder=folder, seed=seed),
            config,
            folder / "work",
            pretrain_tiles=0,
        )
        for seed, name in enumerate(names)
    ]


def slide_stains(method: str) -> StainReference:
    """A slide under yellow, dim light."""
    return dataclasses.replace(
        stain.canonical_stains(method), white_point=np.array([240.0, 235, 200]), luminosity=230.0
    )


@pytest.mark.parametrize("method", STAIN_METHODS)
def test_the_last_step_is_what_the_model_sees(method: str) -> None:
    tile = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    source, goal = slide_stains(method), stain.canonical_stains(method)
    made = stain_steps.steps(tile, source, goal, alone=source)
    assert len(made) == (3 if method == "none" else 5)
    np.testing.assert_array_equal(made[0][1], tile)
    np.testing.assert_array_equal(made[-1][1], recolouring.normalise(tile, source, goal))


def test_each_step_goes_on_from_the_one_before() -> None:
    glass = np.full((4, 4, 3), (216, 211, 180), np.uint8)  # 0.9 of the white point
    (_, raw), (_, cast), (_, bright), _ = stain_steps.steps(
        glass, slide_stains("macenko"), stain.canonical_stains("macenko")
    )
    assert np.ptp(raw[0, 0]) > 30
    # The cast is gone: grey, 0.9 of white; one level of rounding a channel.
    np.testing.assert_allclose(cast.astype(int), 229.5, atol=1.5)
    assert bright.min() > 250  # a luminosity of 230 is below this glass's: it comes out white


def test_a_step_that_is_off_changes_nothing() -> None:
    tile = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    plain = stain.canonical_stains("macenko")
    made = stain_steps.steps(tile, plain, plain)
    for _, picture in made[:3]:
        np.testing.assert_array_equal(picture, tile)


def test_stain_normalisation_alone_leaves_cast_and_luminosity() -> None:
    tile = np.random.default_rng(0).integers(100, 220, (8, 8, 3), np.uint8)
    source, goal = slide_stains("macenko"), stain.canonical_stains("macenko")
    alone = dataclasses.replace(goal, max_concentration=np.array([2.0, 2.0]))
    made = dict(stain_steps.steps(tile, source, goal, alone=alone))
    np.testing.assert_array_equal(
        made["stain alone (macenko)"], recolouring.normalise(tile, alone, goal)
    )
    assert list(made)[-1] == "all steps"
    assert "stain alone (macenko)" not in dict(stain_steps.steps(tile, source, goal))


def test_a_white_field_takes_shadows_from_all_steps_but_stain_alone() -> None:
    scanned, even = made_slide("gradient"), made_slide("none")
    size = scanned.shape[1], scanned.shape[0]
    field = white_field.estimated(scanned, tissue_mask(scanned), size_px=size)
    plain = stain.canonical_stains("macenko")
    shares = field.over_picture(scanned.shape)
    made = stain_steps.steps(scanned, plain, plain, alone=plain, shares=shares)
    named = dict(made)
    assert np.array_equal(named["original"], scanned)
    np.testing.assert_array_equal(
        named["stain alone (macenko)"], recolouring.normalise(scanned, plain, plain)
    )
    lit = named["colour cast, shadows removed"]
    assert np.abs(lit.astype(int) - even)[:50].mean() < 2.5  # glass, and a camera's noise

    before, after = stain_steps.shadows(scanned), stain_steps.shadows(scanned, field)
    assert np.isnan(before[200, 240])  # tissue
    assert np.isnan(before).mean() == pytest.approx(1 - field.glass_share, abs=0.01)
    # 20 % of 255 along the slide; and what the noise of the white point leaves everywhere.
    assert np.nanmax(before) - np.nanmin(before) == pytest.approx(48, abs=5)
    assert np.nanmax(after) - np.nanmin(after) < 4
    assert np.nanmedian(after) < 6


def test_the_tile_of_the_widest_colours_is_chosen() -> None:
    tiles = np.full((50, 8, 8, 3), 200, np.uint8)
    tiles[:, :, 4:] -= np.linspace(0, 100, 50).astype(np.uint8)[:, None, None, None]
    assert stain_figure.chosen_tile(tiles) == 49
    assert stain_figure.chosen_tile(tiles[:1]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", STAIN_METHODS)
def test_a_row_is_drawn_for_each_section_and_one_for_the_reference(
    method: str, tmp_path: Path
) -> None:
    sections = prepared(tmp_path, "A1", "B1", method=method)
    heights = []
    for shown in (sections[:1], sections):
        path = tmp_path / f"{len(shown)}.png"
        stain_figure.stain_panel(shown, stain.canonical_stains(method), path=path, mpp=0.5)
        picture = read_picture(path)
        assert picture.shape[1] > 1000  # wide enough for a person to look at
        assert picture.std() > 10
        heights.append(picture.shape[0])
    assert heights[1] > heights[0] + 200
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["1.png", "2.png", "A1.png", "B1.png"]


def words_of(figure: Figure) -> list[str]:
    texts = [t for axes in figure.axes for t in [*axes.texts, axes.title, axes.yaxis.label]]
    titles = [] if figure.get_suptitle() is None else [figure.get_suptitle()]
    return [" ".join(text.get_text().split()) for text in texts] + titles


def test_with_white_fields_shadows_are_drawn_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(
        tiles__tile_px=32, tiles__mpp=1.0, stain__method="macenko", stain__white_field=True
    )
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    ready = []
    for name, tissue in (("A1", (60, 60, 420, 340)), ("B1", (160, 0, 480, 400))):
        part = dataclasses.replace(
            section(name, name[0]),
            image=write_picture(tmp_path / f"{name}.png", made_slide("gradient", tissue)),
            spots=spot_table(np.array([(200.0, 100), (240, 200), (380, 300)])),
        )
        ready.append(preparing.prepare_section(part, config, tmp_path, pretrain_tiles=0))
    with pytest.raises(FileNotFoundError):  # nothing was drawn to put in place
        stain_figure.stain_panel(ready, ready[0].stains, path=tmp_path / "x.png")
    words = words_of(drawn[0])
    for title in ("original", "colour cast, shadows removed", "shadows left: white field"):
        assert title in words
    assert any("white field off: its glass surrounds" in text for text in words)
    # The tile that is shown as original is the one on the slide.
    with slides.open_slide(tmp_path / "A1.png") as slide:
        scanned = [
            slide.region(int(x) - 16, int(y) - 16, 32, 32) for x, y in ready[0].spots.centres_px
        ]
    shown = np.asarray(drawn[0].axes[0].images[0].get_array())
    assert any(np.array_equal(shown, tile) for tile in scanned)


def test_a_slide_is_drawn_with_its_field_its_scale_and_why_it_is_off() -> None:
    picture, stains = made_slide("gradient"), slide_stains("macenko")
    size = picture.shape[1], picture.shape[0]
    field = white_field.estimated(picture, tissue_mask(picture), size_px=size)
    off = white_field.estimated(picture[80:-80, 80:-80], np.ones((240, 320), bool), size_px=size)
    counts = {}
    for kind, one in (("none", None), ("on", field), ("off", off)):
        figure = stain_figure.slide_panel(
            slides.Overview(picture, 1.0, 0.5),
            stains,
            stain.canonical_stains("macenko"),
            name="a_$1$.png",
            alone=stains,
            field=one,
        )
        FigureCanvasAgg(figure).draw()
        words = words_of(figure)
        counts[kind] = sum(bool(axes.images) for axes in figure.axes)
        assert "stain alone (macenko)" in words
        assert any(text.startswith("white field (") for text in words) == (kind == "on")
        assert ("white field off: 0.0% of it is glass" in words[-1]) == (kind == "off")
        assert len(figure.axes[0].artists) == 1  # the scale bar
    assert counts == {"none": 6, "on": 8, "off": 6}


def test_of_many_sections_a_few_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stain_figure, "MOST_SECTIONS", 2)
    (one,) = prepared(tmp_path, "A1")
    many = [dataclasses.replace(one, name=f"A{number}") for number in range(5)]
    seen: list[str] = []

    def recorded(figure: Figure, *_: object, **__: object) -> None:
        texts = [text for axes in figure.axes for text in [*axes.texts, axes.yaxis.label]]
        seen.extend(text.get_text() for text in texts)

    monkeypatch.setattr(Figure, "savefig", recorded)
    with pytest.raises(FileNotFoundError):  # nothing was drawn to put in place
        stain_figure.stain_panel(many, stain.canonical_stains("macenko"), path=tmp_path / "x.png")
    assert "A0 (patient A)" in seen
    assert "A4 (patient A)" in seen
    assert not any(text.startswith(("A1", "A2", "A3")) for text in seen)
    assert any("tiles of 48 px; 2 of 5 sections" in text for text in seen)


def test_strips_have_the_stains_colours() -> None:
    stains = stain.canonical_stains("vahadane")
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    stain_figure.show_colours(axes, stains, up_to=3.0)
    assert axes.get_xlim()[1] >= 3.0
    for image, row, strongest in zip(
        axes.images, stains.stain_matrix, stains.max_concentration, strict=True
    ):
        colours = np.asarray(image.get_array())[0]
        np.testing.assert_allclose(colours[0], 1)  # no stain: white
        np.testing.assert_allclose(colours[-1], np.exp(-strongest * row))
        assert image.get_extent()[:2] == [0, pytest.approx(strongest)]


def test_mistakes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "panel.png"
    with pytest.raises(InputError, match="no section"):
        stain_figure.stain_panel([], stain.canonical_stains(), path=path)
    with pytest.raises(InputError, match=r"'macenko'.*'vahadane'"):
        stain_figure.stain_panel(
            prepared(tmp_path, "A1"), stain.canonical_stains("vahadane"), path=path
        )
    assert not path.exists()
