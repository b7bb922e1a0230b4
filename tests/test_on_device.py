"""The on-device example agrees with the package, though it shares no code with it."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from histospace_tf import exporting
from histospace_tf.data_pipelines import recolouring, slides, stain
from histospace_tf.slide_prediction.one_slide import predict_slide
from histospace_tf.slide_prediction.places import Where
from histospace_tf.vocabulary import StainReference
from made.bundles import GENES, TILE_PX, device_bundle
from made.exports import tiled_picture

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "examples" / "on_device" / "predict.py"
# Colours differ by one level in a pixel here and there; values are of size 1 to 10.
TOLERANCE = 0.01


@pytest.fixture(scope="module")
def example() -> ModuleType:
    found = importlib.util.spec_from_file_location("on_device_predict", SCRIPT)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float32 file of `device_bundle`."""
    folder = tmp_path_factory.mktemp("device")
    exporting.export(
        device_bundle(), folder, parity_tiles=None, formats=["tflite"], keep_all=True, timed=False
    )
    return folder / "tflite" / "histospace_float32.tflite"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True
    )


@pytest.mark.parametrize("tiles", [1, 3])
def test_example_gives_what_predict_gives(model: Path, tmp_path: Path, tiles: int) -> None:
    file, places, out = tmp_path / "he.png", tmp_path / "places.csv", tmp_path / "out.csv"
    tiled_picture(file, tiles=tiles).to_csv(places, index=False)
    done = run(model, file, "--mpp", "1.38", "--average", "--out", out)
    assert done.returncode == 0, done.stderr
    got = pd.read_csv(out)
    bundle = device_bundle()
    with slides.open_slide(file, mpp=bundle.config.tiles.mpp) as slide:
        right = predict_slide(slide, bundle, where=Where(spots=places))
    assert list(got.columns) == ["x", "y", *GENES]
    np.testing.assert_array_equal(got[["x", "y"]], right.obsm["spatial"])
    np.testing.assert_allclose(got[list(GENES)], right.X, atol=TOLERANCE)
    assert f"{tiles**2} tiles x {len(GENES)} genes, in ln(1 + counts per 10,000)" in done.stdout


@pytest.mark.parametrize("method", ["vahadane", "macenko", "none"])
def test_stains_and_recoloured_pixels_are_the_packages(
    example: ModuleType, tmp_path: Path, method: str
) -> None:
    tiled_picture(tmp_path / "he.png", tiles=3)
    image = example.read(tmp_path / "he.png")
    reference = dataclasses.replace(
        stain.canonical_stains(method), max_concentration=np.array([1.3, 1.1])
    )
    settings = {
        "cast": True,
        "luminosity": True,
        "sample_pixels": 20_000,
        "reference": reference.to_json(),
    }
    found = example.fitted(image, settings)
    right = stain.fit_stains(image, method=method)
    np.testing.assert_allclose(found["white"], right.white_point)
    assert found["luminosity"] == pytest.approx(right.luminosity, abs=0.01)
    if method != "none":
        np.testing.assert_allclose(found["matrix"], right.stain_matrix, atol=1e-3)
        np.testing.assert_allclose(found["strength"], right.max_concentration, atol=1e-2)
    got = example.normalised(image, found, reference.to_json())
    gap = np.abs(got.astype(int) - recolouring.normalise(image, right, reference))
    assert gap.max() <= 1


def test_image_without_tissue_is_taken_as_textbook_stains(example: ModuleType) -> None:
    blank = np.full((64, 64, 3), 240, np.uint8)
    right: StainReference = stain.canonical_stains("vahadane")
    settings = {"cast": True, "luminosity": True, "sample_pixels": 20_000}
    assert example.fitted(blank, {**settings, "reference": right.to_json()}) is None
    np.testing.assert_allclose(example.CANONICAL["matrix"], right.stain_matrix)
    np.testing.assert_allclose(example.CANONICAL["strength"], right.max_concentration)


def test_glass_is_left_out_of_an_image(example: ModuleType) -> None:
    image = np.full((2 * TILE_PX, 3 * TILE_PX, 3), 240, np.uint8)
    image[:TILE_PX, :TILE_PX] = (150, 90, 160)
    assert example.corners(image, TILE_PX, 0.5) == [(0, 0)]


def test_mistakes_end_with_one_line(model: Path, tmp_path: Path) -> None:
    tiled_picture(tmp_path / "he.png", tiles=1)
    (tmp_path / "plain.tflite").write_bytes(b"TFL3" * 20)
    cases: tuple[tuple[tuple[str | Path, ...], str], ...] = (
        ((model, tmp_path / "he.png"), "give the image's with --mpp"),
        ((model, tmp_path / "he.png", "--mpp", "0.69"), "32 x 32 px; a tile takes 64 px"),
        ((model, tmp_path / "no.png", "--mpp", "1.38"), "not an image"),
        ((tmp_path / "plain.tflite", tmp_path / "he.png"), "not a .tflite of `histospace-tf"),
    )
    for arguments, message in cases:
        done = run(*arguments)
        assert done.returncode == 1
        (line,) = (line for line in done.stderr.splitlines() if not line.startswith("INFO"))
        assert message in line
