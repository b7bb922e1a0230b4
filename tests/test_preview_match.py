"""Images held against the previews of the ones that spots' coordinates belong to."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from histospace_tf.config import TileConfig
from histospace_tf.data_pipelines import readers
from histospace_tf.data_pipelines.slides import image_checks
from histospace_tf.data_pipelines.slides.image_checks import Thumbnail
from histospace_tf.data_pipelines.spots import preview_match, previews
from histospace_tf.data_pipelines.spots.previews import Preview
from histospace_tf.vocabulary import InputError, Problem
from made import visium as made_visium
from made.tissue import write_picture

pytestmark = pytest.mark.slow

FORMS = preview_match.FORMS
TURNED = list(FORMS)[1:]
SPOTS = np.array([[300.0, 300.0]])


def tissue(*, seed: int = 0, size: tuple[int, int] = (900, 760)) -> np.ndarray:
    """(h, w, 3) uint8: pink tissue of violet blobs of several sizes, on glass, alike nowhere."""
    rng = np.random.default_rng(seed)
    width, height = size
    blobs = sum(
        ndimage.gaussian_filter(rng.normal(size=(height, width)), sigma) * sigma
        for sigma in (4, 12, 30)
    )
    blobs = np.clip((blobs - blobs.min()) / np.ptp(blobs), 0, 1)[..., None]
    picture = np.array([228, 160, 200]) - 130 * blobs * [1, 0.9, 0.4]
    rows, columns = np.mgrid[:height, :width]
    across, down = columns / width - 0.45, rows / height - 0.5
    around = np.arctan2(down, across)
    waves = [0.12 * np.sin(n * around + turn) for n, turn in enumerate(6 * rng.random(5))]
    reach = 0.38 * (1 + sum(waves))
    return np.where((np.hypot(across, down) < reach)[..., None], picture, 238).astype(np.uint8)


def seen(picture: np.ndarray) -> Thumbnail:
    """A look at a picture as if it were a file."""
    scale = max(1.0, max(picture.shape[:2]) / 1024)
    size = (round(picture.shape[1] / scale), round(picture.shape[0] / scale))
    overview = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return Thumbnail(
        path=Path("he.png"),
        kind="png",
        size_px=(picture.shape[1], picture.shape[0]),
        levels=1,
        stated_mpp=None,
        overview=overview,
        scale=scale,
        tissue=np.ones(overview.shape[:2], bool),
    )


def preview_of(picture: np.ndarray, px: int = 300) -> Preview:
    """As Pillow shrinks it."""
    scale = px / max(picture.shape[:2])
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
    return previews.of_array("hires", scale, small)


def problems_of(image: np.ndarray | Thumbnail, preview: Preview) -> list[Problem]:
    thumbnail = image if isinstance(image, Thumbnail) else seen(np.ascontiguousarray(image))
    return preview_match.preview_problems(
        "section S", thumbnail, [preview], SPOTS, None, TileConfig()
    )


@pytest.mark.parametrize("form", FORMS)
def test_each_of_eight_forms_is_named(form: str) -> None:
    picture = tissue()
    found = problems_of(FORMS[form](picture), preview_of(picture))
    if form == "as it is":
        assert found == []
        return
    (problem,) = found
    assert problem.severity == "error"
    assert f"is the hires preview {form}: " in problem.message


def test_the_correlation_is_that_of_numpy_and_scipy_on_pillows_pictures() -> None:
    picture, other = tissue(), tissue(seed=1)

    def contrast(values: np.ndarray) -> np.ndarray:
        grey = Image.fromarray(values).resize((128, 128), Image.Resampling.BOX)
        grey = np.asarray(grey, float).mean(axis=2)
        found = grey - ndimage.gaussian_filter(grey, 8, mode="mirror")
        return found / np.sqrt(ndimage.gaussian_filter(found**2, 8, mode="mirror") + 16)

    for image in (picture, other):
        found = preview_match.resemblance(picture, image)
        for form, turned in FORMS.items():
            expected = np.corrcoef(contrast(image).ravel(), turned(contrast(picture)).ravel())[0, 1]
            assert found[form] == pytest.approx(expected, abs=0.03), form


def test_another_sections_image_is_refused() -> None:
    (problem,) = problems_of(tissue(seed=1), preview_of(tissue()))
    assert problem.severity == "error"
    assert "does not show what the hires preview shows" in problem.message
    assert "another section" in problem.advice


@pytest.mark.parametrize(
    ("cut", "begins"),
    [
        (lambda p: p[:, 120:], (120, 0)),
        (lambda p: p[60:-40, 90:-200], (90, 60)),
        (lambda p: np.roll(p, (40, 30), (0, 1)), (-30, -40)),
        (lambda p: np.pad(p, ((50, 0), (80, 0), (0, 0)), mode="edge"), (-80, -50)),
    ],
)
def test_a_cropped_widened_or_moved_image_is_refused_with_where_it_begins(
    cut: Callable[[np.ndarray], np.ndarray], begins: tuple[int, int]
) -> None:
    picture = tissue()
    (problem,) = problems_of(cut(picture), preview_of(picture))
    assert problem.severity == "error"
    told = re.search(r"begins at about x (-?\d+), y (-?\d+) of", problem.message)
    assert told is not None
    assert [int(told[1]), int(told[2])] == pytest.approx(begins, abs=3)


def test_an_image_cut_at_the_right_and_below_keeps_its_coordinates() -> None:
    picture = tissue()
    (problem,) = problems_of(picture[:-100, :-150], preview_of(picture))
    assert problem.severity == "note"
    assert "coordinates hold" in problem.message


@pytest.mark.parametrize(
    "change",
    [
        lambda p: np.clip(p.astype(int) + 30, 0, 255).astype(np.uint8),
        lambda p: (p * 0.5).astype(np.uint8),
        lambda p: p[..., ::-1],
        lambda p: p.mean(axis=2, keepdims=True).repeat(3, axis=2).astype(np.uint8),
        lambda p: 255 - p,
        lambda p: cv2.GaussianBlur(p, (0, 0), 3),
    ],
)
def test_brightness_stain_and_sharpness_are_no_other_section(
    change: Callable[[np.ndarray], np.ndarray],
) -> None:
    picture = tissue()
    assert problems_of(change(picture), preview_of(picture)) == []
    assert problems_of(change(picture), preview_of(picture, 60)) == []


def test_of_a_preview_that_shows_nothing_only_the_size_is_used(tmp_path: Path) -> None:
    picture = tissue()
    black = previews.of_array("hires", 1 / 3, np.zeros((253, 300, 3), np.uint8))
    assert black.black
    assert problems_of(tissue(seed=1), black) == []
    (problem,) = problems_of(picture[:, 100:], black)
    assert (problem.severity, "was cropped" in problem.message) == ("warning", True)
    (problem,) = problems_of(np.rot90(picture), black)
    assert (problem.severity, "turned by 90 degrees" in problem.message) == ("error", True)
    noise = np.random.default_rng(0).integers(0, 255, (253, 300, 3), dtype=np.uint8)
    assert problems_of(picture, previews.of_array("hires", 1 / 3, noise)) == []
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG")
    damaged = previews.of_file("hires", 1 / 3, tmp_path / "damaged.png")
    assert (damaged.size_px, damaged.picture) == (None, None)
    assert problems_of(picture, damaged) == []


def test_arrays_of_all_forms_give_the_same_preview() -> None:
    picture = tissue()[::3, ::3]
    expected = previews.of_array("hires", 1 / 3, picture)
    for values in (
        picture / 255,
        picture.astype(np.float32),
        np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)]),
    ):
        found = previews.of_array("hires", 1 / 3, values)
        assert found.size_px == expected.size_px == (300, 254)
        np.testing.assert_allclose(found.picture, expected.picture, atol=1)  # type: ignore[arg-type]
    grey = previews.of_array("hires", 1 / 3, picture[..., 0])
    assert grey.picture is not None
    assert previews.of_array("hires", 1 / 3, np.array("text")).picture is None


def test_a_runs_turned_image_is_refused_and_its_own_taken(tmp_path: Path) -> None:
    picture = tissue()
    run = made_visium.write_run(tmp_path / "S1", picture)
    assert readers.read_cohort(run).sections[0].image == run / "tissue.png"
    write_picture(run / "tissue.png", picture[:, ::-1])
    with pytest.raises(InputError, match="is the hires preview mirrored left to right"):
        readers.read_cohort(run)
    for name in ("hires", "lowres"):
        (run / "spatial" / f"tissue_{name}_image.png").unlink()
    scales = run / "spatial" / "scalefactors_json.json"
    values = {k: v for k, v in json.loads(scales.read_text()).items() if "scalef" not in k}
    scales.write_text(json.dumps(values))
    assert len(readers.read_cohort(run).sections) == 1  # nothing tells


def _jpeg(picture: np.ndarray) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=20)
    return np.asarray(Image.open(out))


@pytest.fixture(scope="module")
def real(test_data: Path) -> dict[str, Thumbnail]:
    """Looks at HER2ST's and the olfactory bulb's images."""
    files = {
        file.parent.name: file
        for data in ("her2st", "mob")
        for file in sorted((test_data / data / "ST-imgs").glob("*/*/*.jpg"))
    }
    return {name: image_checks.read_thumbnail(file) for name, file in files.items()}


def test_real_sections_in_all_forms_and_against_each_other(real: dict[str, Thumbnail]) -> None:
    """The figures in docs/formats.md."""
    own, turned, others = [], [], []
    for name, thumbnail in real.items():
        for px in (600, 200):
            preview = preview_of(thumbnail.overview, px)
            alike = preview_match.resemblance(preview.picture, thumbnail.overview)  # type: ignore[arg-type]
            own.append(alike["as it is"])
            turned.append(max(alike[form] for form in TURNED))
            for other, another in real.items():
                if other != name:
                    found = preview_match.resemblance(preview.picture, another.overview)  # type: ignore[arg-type]
                    others.append(max(found.values()))
    assert min(own) > 0.95
    assert max(turned) < 0.5
    assert max(others) < 0.5


def test_real_sections_changed_as_people_change_them_raise_no_alarm(
    real: dict[str, Thumbnail],
) -> None:
    stain = np.array([[0.8, 0.1, 0.2], [0.2, 0.8, 0], [0, 0.1, 0.8]])
    changes: list[Callable[[np.ndarray], np.ndarray]] = [
        _jpeg,
        lambda p: np.clip(p.astype(int) + 25, 0, 255).astype(np.uint8),
        lambda p: (255 * (p / 255.0) ** 1.6).astype(np.uint8),
        lambda p: np.clip(p @ stain, 0, 255).astype(np.uint8),
    ]
    for name, thumbnail in real.items():
        preview = preview_of(thumbnail.overview)
        preview = dataclasses.replace(
            preview, scale=preview.scale * thumbnail.overview.shape[1] / thumbnail.size_px[0]
        )
        for change in changes:
            changed = dataclasses.replace(thumbnail, overview=change(thumbnail.overview))
            assert problems_of(changed, preview) == [], name
    for name in ("C4", "A1"):
        thumbnail = real[name]
        preview = preview_of(thumbnail.overview)
        for form in TURNED:
            (problem,) = problems_of(FORMS[form](thumbnail.overview), preview)
            assert f"is the hires preview {form}: " in problem.message
    for other in ("C2", "C3", "C6", "B4"):
        (problem,) = problems_of(real[other].overview, preview_of(real["C4"].overview))
        assert problem.severity == "error"
