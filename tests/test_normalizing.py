"""The verb behind `histospace-tf normalize`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from histospace_tf import normalizing
from histospace_tf.data_pipelines import recolouring, stain
from histospace_tf.requests import NormalizeRequest
from histospace_tf.vocabulary import STAIN_METHODS, InputError
from made.lighting import made_slide
from made.pictures import read_picture, stained_squares


def made_image(**kind: Any) -> np.ndarray:
    return stained_squares(stain.canonical_stains().stain_matrix, white=240, **kind)


def write(image: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return path


@pytest.mark.parametrize("method", STAIN_METHODS)
def test_an_image_is_written_as_the_formula_says(method: str, tmp_path: Path) -> None:
    image = made_image()
    result = normalizing.normalize(
        NormalizeRequest(write(image, tmp_path / "a.png"), out=tmp_path / "out", method=method)
    )
    assert result.images == (Path("a.png"),)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "stain_panel.png"}
    # The image is smaller than the sample, so the fit sees all of it whatever their order.
    source = stain.fit_stains(image, method=method)
    expected = recolouring.normalise(image, source, stain.canonical_stains(method))
    difference = np.abs(read_picture(tmp_path / "out" / "a.png").astype(int) - expected)
    assert difference.max() <= 1  # sums in another order


def test_strips_leave_no_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(made_image(), tmp_path / "a.png")
    normalizing.normalize(NormalizeRequest(path, out=tmp_path / "whole"))
    monkeypatch.setattr(normalizing, "_STRIP_PX", 7)
    normalizing.normalize(NormalizeRequest(path, out=tmp_path / "strips"))
    np.testing.assert_array_equal(
        read_picture(tmp_path / "whole" / "a.png"), read_picture(tmp_path / "strips" / "a.png")
    )


def test_a_folder_keeps_its_relative_names(tmp_path: Path) -> None:
    write(made_image(seed=1), tmp_path / "in" / "x" / "one.jpg")
    write(made_image(seed=2), tmp_path / "in" / "two.tif")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    result = normalizing.normalize(NormalizeRequest(tmp_path / "in", out=tmp_path / "out"))
    assert set(result.images) == {Path("x/one.png"), Path("two.png")}
    written = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png")}
    assert written == {"x/one.png", "two.png", "stain_panel.png"}
    assert result.figure == Path("stain_panel.png")
    panel = read_picture(tmp_path / "out" / "stain_panel.png")
    assert min(panel.shape[:2]) > 1000  # four pictures that a person can look at
    assert panel.std() > 10
    assert "2 images" in result.summary()
    assert "textbook H&E" in result.summary()
    assert "stain_panel.png" in result.summary()


def test_an_output_folder_among_the_images_is_not_read_again(tmp_path: Path) -> None:
    write(made_image(), tmp_path / "in" / "a.png")
    for _ in range(2):
        result = normalizing.normalize(
            NormalizeRequest(tmp_path / "in", out=tmp_path / "in" / "out", force=True)
        )
        assert result.images == (Path("a.png"),)


def test_a_reference_image_sets_the_colours(tmp_path: Path) -> None:
    pale = write(made_image(seed=1, strength=0.5), tmp_path / "pale.png")
    strong = write(made_image(seed=2, strength=1.5), tmp_path / "strong.png")
    result = normalizing.normalize(NormalizeRequest(pale, out=tmp_path / "out", reference=strong))
    recoloured = read_picture(tmp_path / "out" / "pale.png")
    assert str(strong) in result.summary()
    assert recoloured.mean() < read_picture(pale).mean() - 15
    # The same random tissue three times as strong: means of tissue and glass come to agree.
    assert recoloured.mean() == pytest.approx(255 / 240 * read_picture(strong).mean(), rel=0.05)


@pytest.mark.parametrize(
    "image",
    [
        np.full((40, 40, 3), 250, np.uint8),
        np.zeros((40, 40, 3), np.uint8),
        np.full((1, 1, 3), (180, 90, 150), np.uint8),
    ],
    ids=["blank", "black", "1 x 1"],
)
def test_an_image_without_tissue_is_written_and_named(image: np.ndarray, tmp_path: Path) -> None:
    path = write(image, tmp_path / "empty.png")
    result = normalizing.normalize(NormalizeRequest(path, out=tmp_path / "out"))
    assert result.without_tissue == (str(path),)
    assert "empty.png" in result.summary()
    assert read_picture(tmp_path / "out" / "empty.png").shape == image.shape
    assert (tmp_path / "out" / "stain_panel.png").is_file()


def test_a_white_field_lights_what_is_written_and_the_summary_says_where(tmp_path: Path) -> None:
    even = write(made_slide("none"), tmp_path / "even.png")
    (tmp_path / "in").mkdir()
    write(made_slide("gradient"), tmp_path / "in" / "a.png")
    write(made_slide("gradient")[80:-80, 80:-80], tmp_path / "in" / "tissue.png")
    asked = functools.partial(NormalizeRequest, method="macenko", reference=even)
    requests = {
        "right": asked(even, out=tmp_path / "right"),
        "plain": asked(tmp_path / "in", out=tmp_path / "plain"),
        "lit": asked(tmp_path / "in", out=tmp_path / "lit", white_field=True),
    }
    done = {name: normalizing.normalize(request) for name, request in requests.items()}
    right = read_picture(tmp_path / "right" / "even.png").astype(int)
    plain, lit = (
        np.abs(read_picture(tmp_path / name / "a.png") - right).mean() for name in ("plain", "lit")
    )
    assert lit < 0.5 * plain
    assert done["plain"].white_fields == {}
    fields = done["lit"].white_fields
    assert fields["a.png"]["on"]
    assert not fields["tissue.png"]["on"]
    text = done["lit"].summary()
    assert "white field on in 1 of 2 images, up to 4" in text
    assert "white field off in tissue.png: 0.0% of it is glass; at least 10%" in text
    assert "white field" not in done["plain"].summary()
    # What has no field is written as without one.
    np.testing.assert_array_equal(
        read_picture(tmp_path / "lit" / "tissue.png"),
        read_picture(tmp_path / "plain" / "tissue.png"),
    )


def test_a_bad_file_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    write(made_image(seed=1), tmp_path / "in" / "a.png")
    whole = write(made_image(seed=2), tmp_path / "b.jpg").read_bytes()
    (tmp_path / "in" / "b.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"b\.jpg"):
        normalizing.normalize(NormalizeRequest(tmp_path / "in", out=tmp_path / "out"))
    (tmp_path / "in" / "b.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"b\.jpg"):
        normalizing.normalize(NormalizeRequest(tmp_path / "in", out=tmp_path / "out"))
    assert {path.name for path in tmp_path.iterdir()} == {"in", "b.jpg"}


def test_mistakes_are_refused_before_any_work(tmp_path: Path) -> None:
    path = write(made_image(), tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"missing\.png"):
        normalizing.normalize(NormalizeRequest(tmp_path / "missing.png", out=out))
    with pytest.raises(InputError, match="'spams' is unknown"):
        normalizing.normalize(NormalizeRequest(path, out=out, method="spams"))
    with pytest.raises(InputError, match=r"lost\.png"):
        normalizing.normalize(NormalizeRequest(path, out=out, reference=tmp_path / "lost.png"))
    blank = write(np.full((40, 40, 3), 250, np.uint8), tmp_path / "blank.png")
    with pytest.raises(InputError, match=r"blank\.png.*no tissue"):
        normalizing.normalize(NormalizeRequest(path, out=out, reference=blank))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="nothing"):
        normalizing.normalize(NormalizeRequest(tmp_path / "nothing", out=out))
    assert not out.exists()


def test_two_images_of_one_output_name_are_refused(tmp_path: Path) -> None:
    write(made_image(), tmp_path / "in" / "a.png")
    write(made_image(), tmp_path / "in" / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg.*a\.png|a\.png.*a\.jpg"):
        normalizing.normalize(NormalizeRequest(tmp_path / "in", out=tmp_path / "out"))
    write(made_image(), tmp_path / "other" / "stain_panel.png")
    with pytest.raises(InputError, match=r"stain_panel\.png"):
        normalizing.normalize(NormalizeRequest(tmp_path / "other", out=tmp_path / "out"))


def test_an_image_too_large_for_a_png_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normalizing, "MOST_PIXELS", 1000)
    with pytest.raises(InputError, match=r"a\.png.*96 x 96"):
        normalizing.normalize(
            NormalizeRequest(write(made_image(), tmp_path / "a.png"), out=tmp_path / "out")
        )
    assert not (tmp_path / "out").exists()


def test_a_finished_output_stands_without_force(tmp_path: Path) -> None:
    path = write(made_image(), tmp_path / "a.png")
    normalizing.normalize(NormalizeRequest(path, out=tmp_path / "out"))
    with pytest.raises(InputError, match="`force`"):
        normalizing.normalize(NormalizeRequest(path, out=tmp_path / "out"))
    result = normalizing.normalize(NormalizeRequest(path, out=tmp_path / "out", force=True))
    assert result.figure is not None


def test_a_whole_slide_file_is_normalised(test_data: Path, tmp_path: Path) -> None:
    slide = test_data / "slides" / "CMU-1-Small-Region.svs"
    result = normalizing.normalize(NormalizeRequest(slide, out=tmp_path / "out", method="macenko"))
    assert result.without_tissue == ()
    recoloured = read_picture(tmp_path / "out" / "CMU-1-Small-Region.png")
    assert recoloured.shape == (2967, 2220, 3)
    assert np.median(recoloured[:200, :200]) > 250  # glass came to white
