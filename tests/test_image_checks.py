"""What can be H&E and what cannot, by what an image shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from histospace_tf import checking
from histospace_tf.data_pipelines import slides
from histospace_tf.data_pipelines.slides import image_checks
from histospace_tf.data_pipelines.slides.tissue import tissue_mask
from histospace_tf.vocabulary import InputError, Problem
from made.pictures import SIZE, fluorescence, stained
from made.tissue import write_picture


def problems(picture: np.ndarray) -> list[Problem]:
    return image_checks.picture_problems("S", "a.tif", picture, tissue_mask(picture))


BLUE, GREEN, RED = (0, 0, 1), (0, 1, 0), (1, 0, 0)


@pytest.mark.parametrize("ground", [3.0, 30.0])
@pytest.mark.parametrize(
    "dyes",
    [(BLUE,), (BLUE, GREEN), (BLUE, GREEN, RED), (BLUE, (0, 1, 1)), ((1, 0, 1), (1, 1, 0), BLUE)],
)
def test_fluorescence_is_an_error(dyes: tuple[tuple[int, int, int], ...], ground: float) -> None:
    picture = fluorescence(*dyes, ground=ground)
    (problem,) = problems(picture)
    assert problem.severity == "error"
    assert "is not H&E" in problem.message
    _, jpeg = cv2.imencode(".jpg", picture[..., ::-1])
    assert [p.severity for p in problems(np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB)))] == [
        "error"
    ]


@pytest.mark.parametrize("dyes", [(BLUE,), (BLUE, GREEN), (BLUE, GREEN, RED)])
def test_inverted_fluorescence_is_a_warning(dyes: tuple[tuple[int, int, int], ...]) -> None:
    assert {problem.severity for problem in problems(255 - fluorescence(*dyes))} == {"warning"}


@pytest.mark.parametrize("tissue", [SIZE, SIZE // 2])
@pytest.mark.parametrize("light", [1.0, 0.5, 0.3])
@pytest.mark.parametrize("border", [0, SIZE // 2])
def test_h_and_e_is_none_however_dark_it_is(tissue: int, light: float, border: int) -> None:
    picture = (stained(tissue=tissue) * light).astype(np.uint8)
    picture[:border] = 0  # as some scanners fill what they did not scan
    assert {problem.severity for problem in problems(picture)} <= {"note"}


def test_next_to_no_tissue_is_a_warning() -> None:
    glass = np.full((1200, 1200, 3), 244, np.uint8)
    glass[:60, :60] = stained()[:60, :60]
    (problem,) = problems(glass)
    assert problem.severity == "warning"
    assert "tissue covers only 0.18%" in problem.message


def test_real_h_and_e_has_no_finding(test_data: Path) -> None:
    every = [*test_data.glob("breast_he/*/*"), *test_data.glob("stain/*.png")]
    files = [*sorted(every)[::6], test_data / "slides" / "CMU-1-Small-Region.svs"]
    for file in files:
        assert image_checks.thumbnail_problems(file.name, image_checks.read_thumbnail(file)) == []


def test_check_reports_what_else_a_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(stained()[:200], **options)
        tiff.write(stained(), **options)
    report = checking.check(path, show_progress=False)
    assert report.exit_code == 1
    assert "Warnings:\n  image a.tif: holds 2 pictures; the largest is read" in report.text()


def test_an_open_image_is_judged_as_check_judges_it(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", fluorescence(BLUE, RED))
    with slides.open_slide(path) as slide:
        found = image_checks.slide_problems("section 'A'", slide)
    assert found == image_checks.thumbnail_problems(
        "section 'A'", image_checks.read_thumbnail(path)
    )
    with pytest.raises(InputError, match=r"section 'A': a\.png is not H&E"):
        image_checks.refuse_errors(found)
    assert image_checks.refuse_errors([Problem("note", "a", "b")]) == [Problem("note", "a", "b")]
