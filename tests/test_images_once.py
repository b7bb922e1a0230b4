"""Each stage of a command opens an image once, and decodes it and looks for tissue once."""

from __future__ import annotations

import collections
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import pytest

from histospace_tf import bundle_file, exporting, fitting, predicting, presets
from histospace_tf.config import Config
from histospace_tf.data_pipelines import slides, tiles
from histospace_tf.data_pipelines.slides import image, image_checks
from histospace_tf.requests import FitRequest, PredictRequest
from made.pictures import smooth_picture
from made.tissue import write_picture

Counts = collections.Counter[tuple[str, str]]
_counting: list[Counts] = []  # an audit hook stays for the life of a process


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _counting and isinstance(arguments[0], str):
        _counting[-1]["open", Path(arguments[0]).name] += 1


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """How often each file was opened, and what was made of images: ("open", "a.jpg") -> times."""
    if not hasattr(sys, "_histospace_hook"):
        sys.addaudithook(_hook)
        sys._histospace_hook = True  # type: ignore[attr-defined]
    counted: Counts = collections.Counter()

    def count(where: object, name: str, what: str) -> None:
        real = getattr(where, name)

        def counting(*arguments: Any, **keywords: Any) -> Any:
            counted[what, ""] += 1
            return real(*arguments, **keywords)

        monkeypatch.setattr(where, name, counting)

    count(imagecodecs, "jpeg8_decode", "decode")
    count(slides, "open_slide", "open_slide")
    count(image.SlideImage, "_whole", "overview")
    count(image, "tissue_mask", "tissue")
    count(presets, "from_json", "parse")
    _counting.append(counted)
    yield counted
    _counting.remove(counted)


def test_a_header_is_read_again_only_where_the_file_has_changed(
    tmp_path: Path, counts: Counts
) -> None:
    path = tmp_path / "header.jpg"
    for height in (60, 80):
        write_picture(path, smooth_picture(height, 90))
        counts.clear()
        for _ in range(2):
            assert slides.image_size(path) == (90, height)
            assert slides.stated_mpp(path) is None
        assert counts["open", path.name] == 2  # for its first bytes, and by the reader of JPEG
        assert counts["decode", ""] == 0


def test_an_open_slide_makes_an_overview_and_looks_for_tissue_once(
    tmp_path: Path, counts: Counts
) -> None:
    path = tmp_path / "slide.jpg"
    write_picture(path, smooth_picture(300, 200))
    with slides.open_slide(path) as slide:
        for _ in range(2):
            slide.overview(100)[0][:] = 0  # a copy
            slide.tissue(100)
            image_checks.slide_problems("image", slide)
            tiles.grid_centres(slide, tile_px=50, mpp=None, min_tissue=0.5)
        assert slide.overview(100)[0].any()
        assert slide.stated_mpp is None
    assert slides.image_size(path) == (200, 300)
    assert counts["open", path.name] == 2
    assert counts["overview", ""] == counts["tissue", ""] == 2  # of 100 px and of 1024 px
    assert counts["decode", ""] == 1


def test_predict_opens_a_jpeg_once_to_check_and_once_to_work(
    small_tissue: Path, small_run: Path, counts: Counts, tmp_path: Path
) -> None:
    (made,) = (small_tissue / "ST-imgs" / "B").glob("*/*.jpg")
    slide = Path(shutil.copy(made, tmp_path / "slide.jpg"))
    bundle_file._parsed.cache_clear()
    counts.clear()
    predicting.predict(
        PredictRequest(slide, model=small_run, out=tmp_path / "p.h5ad", mpp=0.69, fast=True)
    )
    # A file is opened for its first bytes, which say who reads it, and by its reader.
    assert counts["open", slide.name] == 2 * 2
    assert counts["open_slide", ""] == counts["decode", ""] == 1
    assert counts["tissue", ""] == 1
    assert counts["overview", ""] == 2  # where tissue is, and the picture beside the prediction
    assert counts["parse", ""] == 1
    assert counts["open", "bundle.json"] == 2  # the other time for its checksum


@pytest.mark.slow
@pytest.mark.slow
def test_fit_opens_an_image_once_to_read_and_once_to_cut(
    small_tissue: Path,
    small_config: Config,
    counts: Counts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporting, "export", lambda *_, **__: exporting.ExportReport((), (), 0, ""))
    counts.clear()
    fitting.fit(FitRequest(small_tissue, tmp_path / "run", config=small_config, hold_out=["B"]))
    images = sorted(path.name for path in small_tissue.glob("ST-imgs/*/*/*.jpg"))
    assert len(images) == 3
    for name in images:
        assert counts["open", name] == 2 * 2 + 1  # once for its checksum
    assert counts["open_slide", ""] == counts["decode", ""] == 2 * len(images)
    assert counts["tissue", ""] == 2 * len(images)
