"""How like the training tissue slides are, by the packaged model (docs/trust.md).

    python benchmarks/familiarity.py DATA --work DIR

DATA: the folder with her2st, mob, breast_he, slides and stain. Every section and every patient of
HER2ST is left out of what is known and then asked about; other tissue, scanners and stains, and a
part of section C4 that was blurred, recoloured and otherwise spoilt, are asked of the packaged
model, as `predict` does. Changed pictures and a contact sheet of them stay in DIR to be looked at.
Prints Markdown. Some ten minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np

from histospace_tf import bundle, packaged, presets
from histospace_tf.cohort import features, paired, reading
from histospace_tf.data_pipelines import readers, slides, splits
from histospace_tf.models import regressor
from histospace_tf.scores import familiarity
from histospace_tf.slide_prediction import one_slide
from histospace_tf.slide_prediction.places import Where
from histospace_tf.vocabulary import InputError, Section

EVERYWHERE = Where(keep_marks=True)  # `predict` leaves out ink and what is out of focus
CHANGED = "C4"
SIDE_PX = 5000  # of the part of it that is changed
SCAN_MPP = 0.25  # of the breast images: 40x


def changes(image: np.ndarray) -> dict[str, np.ndarray]:
    """A picture (h, w, 3) BGR, spoilt in every way that is asked about."""
    rng = np.random.default_rng(0)
    height, width = image.shape[:2]
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) - 60) % 180
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    marked = cv2.line(image.copy(), (0, 0), (width, height), (200, 40, 30), width // 4)
    folded = image.copy()
    folded[:, width // 3 : width // 2] = (folded[:, width // 3 : width // 2] * 0.45).astype(
        np.uint8
    )

    def noisy(deviation: float) -> np.ndarray:
        return np.clip(image + rng.normal(0, deviation, image.shape), 0, 255).astype(np.uint8)

    return {
        "as it is": image,
        "out of focus, sigma 2 um": cv2.GaussianBlur(image, (0, 0), 2 / 0.69),
        "out of focus, sigma 6 um": cv2.GaussianBlur(image, (0, 0), 6 / 0.69),
        "recoloured, blue and green": cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR),
        "grey": cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR),
        "noise of deviation 40": noisy(40),
        "like fluorescence: inverted": 255 - image,
        "a pen's stroke across it": marked,
        "a dark fold across it": folded,
        "taken at twice its size": cv2.resize(image, None, fx=0.5, fy=0.5),
        "noise alone": rng.integers(0, 200, image.shape).astype(np.uint8),
    }


class Bench:
    """Data, the packaged model, and the rows of the table."""

    def __init__(self, data: Path, work: Path) -> None:
        self.data, self.work = data, work
        self.model = bundle.load(packaged.run_folder(Path(packaged.DEFAULT)))
        settings = presets.preset("recommended")
        self.sections = reading.usable_sections(readers.read_cohort(data / "her2st"), settings)
        self.spots = paired.PairedSpots.of(self.sections, settings)
        self.settings = settings

    def left_out(self) -> None:
        """Rows of HER2ST's sections and patients, of models that never saw them."""
        spots = paired.cut_tiles(self.spots, self.settings, self.work / "tiles", pretrain_on=[])
        kept = features.tile_features(
            self.model.trunk,
            paired.stained_tiles(spots, self.model.reference, None),
            symmetries=1,
            label="HER2ST",
            store=self.work / "her2st.npy",
        )
        tiles = regressor.channel_means(np.asarray(kept[:, 0]))
        for by in ("section", "patient"):
            names = getattr(spots.index, by)
            for name in np.unique(names):
                rows = np.flatnonzero(names != name)
                groups = splits.inner_folds(spots.index, rows, folds=4)
                known = familiarity.learned(tiles, rows, groups)
                row(f"HER2ST {by} {name}, left out", known.of(tiles[names == name]))

    def image(self, path: Path, mpp: float | None) -> np.ndarray:
        """Familiarity of a slide's places; none where nothing can be predicted."""
        try:
            with slides.open_slide(path, mpp=mpp) as slide:
                table = one_slide.predict_slide(slide, self.model, where=EVERYWHERE, fast=True)
        except InputError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            return np.zeros(0)
        return np.asarray(table.obs["familiarity"])

    def images(self, title: str, paths: list[Path], mpp: float | None) -> None:
        """One row of all places of some images."""
        parts = [self.image(path, mpp) for path in sorted(paths)]
        several = f", {len(paths)} images" if len(paths) > 1 else ""
        row(title + several, np.concatenate(parts))

    def changed(self, section: Section) -> None:
        """Rows of a section's middle, as it is and spoilt."""
        assert section.image is not None
        whole = cv2.imread(str(section.image))
        top, left = (np.array(whole.shape[:2]) - SIDE_PX) // 2
        part = whole[top : top + SIDE_PX, left : left + SIDE_PX]
        shown = []
        for number, (title, picture) in enumerate(changes(part).items()):
            path = self.work / f"changed_{number:02d}.png"
            cv2.imwrite(str(path), picture)
            row(f"{section.name}, {title}", self.image(path, section.mpp))
            shown.append(cv2.resize(picture, (400, 400), interpolation=cv2.INTER_AREA))
        shown += [np.full_like(shown[0], 255)] * (-len(shown) % 4)
        lines = [np.hstack(shown[at : at + 4]) for at in range(0, len(shown), 4)]
        cv2.imwrite(str(self.work / "changed.jpg"), np.vstack(lines))


def row(title: str, values: np.ndarray) -> None:
    """Prints one row."""
    if not len(values):
        print(f"| {title} | 0 | - | - | no tissue was found |", flush=True)
        return
    strange = familiarity.strange_share(values)
    said = familiarity.verdict(values, "patient").partition(":")[0]
    print(
        f"| {title} | {len(values)} | {strange:.0%} | {np.median(values):.2f} | {said} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    bench, data = Bench(given.data, given.work), given.data
    print("| slide | places | strange | median familiarity | said |\n|---|---|---|---|---|")
    bench.left_out()
    bench.changed(next(s for s in bench.sections if s.name == CHANGED))
    several: tuple[tuple[str, Callable[[], list[Path]], float | None], ...] = (
        (
            "TCGA breast (BCSS), 40x",
            lambda: list((data / "breast_he/bcss").glob("*.jp*g")),
            SCAN_MPP,
        ),
        (
            "breast (BreCaHAD), 40x",
            lambda: list((data / "breast_he/brecahad").glob("*.*")),
            SCAN_MPP,
        ),
        ("breast (TNBC), 40x", lambda: list((data / "breast_he/tnbc").glob("*.png")), SCAN_MPP),
        (
            "skin, Aperio (CMU-1-Small-Region)",
            lambda: [data / "slides/CMU-1-Small-Region.svs"],
            None,
        ),
        ("lymph node, DICOM, low resolution", lambda: [data / "slides/camelyon_lowres.dcm"], 1.38),
        ("drawn boxes (generic TIFF)", lambda: [data / "slides/boxes.tiff"], 1.0),
        ("mouse olfactory bulb", lambda: list((data / "mob").rglob("A?_HE.jpg")), 2.76),
    )
    for title, paths, mpp in several:
        bench.images(title, paths(), mpp)


if __name__ == "__main__":
    main()
