"""A trained model -> a SavedModel for TF Serving and a .tflite file for devices, both checked.

out/saved_model/1/                         of `histospace_tf.saved_model`
out/tflite/histospace_float32.tflite       its `serving_default`: the single-tile model
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

import histospace_tf
from histospace_tf import outputs, parity, saved_model, saved_model_cases
from histospace_tf.bundle import Bundle
from histospace_tf.vocabulary import InputError

FORMATS = ("saved_model", "tflite")
TFLITE_NAME = "histospace_float32.tflite"
RANDOM_TILES = 8


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares with Keras.

    files: each exported folder or file, and its size in bytes.
    checks: of `parity.run_checks`, on `n_tiles` tiles.
    tiles: where those came from, in words.
    """

    files: tuple[tuple[Path, int], ...]
    checks: tuple[parity.Check, ...]
    n_tiles: int
    tiles: str

    def summary(self) -> str:
        """The report as text of a few lines."""
        sizes = [f"{path}  {size / 1e6:.2f} MB" for path, size in self.files]
        heading = f"Difference from Keras on {self.n_tiles} {self.tiles}:"
        return "\n".join([*sizes, heading, parity.table(self.checks)])


def export(
    bundle: Bundle,
    out: Path,
    *,
    parity_tiles: Path | None,
    formats: Sequence[str] = FORMATS,
    force: bool = False,
) -> ExportReport:
    """Writes a model's exports into `out`, each whole and checked, or not at all.

    The checks run in a fresh process (`histospace_tf.parity`) before anything takes its final name.

    Args:
        out: folder, new or not.
        parity_tiles: .npz whose `tile` is (n, s, s, 3) uint8, stain-normalised; None: random
            smooth tiles, which the report says.
        formats: of FORMATS.
        force: replace finished exports.
    Raises:
        InputError: an unknown format, `out` a file, an export that is there already, unusable
            parity tiles.
        parity.ParityError: an export differs from Keras by more than rtol and atol of 1e-4, or
            does not run.
    """
    if not formats or set(formats) - set(FORMATS):
        unknown = ", ".join(repr(name) for name in formats if name not in FORMATS) or "none"
        raise InputError(f"export format {unknown}; {' or '.join(FORMATS)} works")
    if out.exists() and not out.is_dir():
        raise InputError(f"{str(out)!r} is a file; a folder, new or not, works")
    finished = {"saved_model": out / "saved_model" / "1", "tflite": out / "tflite" / TFLITE_NAME}
    finished = {name: finished[name] for name in FORMATS if name in formats}
    for path in finished.values():
        outputs.refuse_finished(path, force=force)
    tile_px = bundle.config.tiles.tile_px
    tiles = _parity_tiles(parity_tiles, tile_px) if parity_tiles else _random_tiles(tile_px)
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".export.", dir=out) as scratch:
            draft = Path(scratch)
            served = draft / "saved_model" / "1"
            _write_saved_model(bundle, served)
            if "tflite" in formats:
                _write_tflite(served, draft / "tflite" / TFLITE_NAME)
            if "saved_model" not in formats:
                shutil.rmtree(served)
            checks = _checked(bundle, tiles, draft)
            for path in finished.values():
                path.parent.mkdir(parents=True, exist_ok=True)
                outputs.put_in_place(draft / path.relative_to(out), path)
    except BaseException:
        with contextlib.suppress(OSError):
            for folder in missing:
                folder.rmdir()
        raise
    return ExportReport(
        files=tuple((path, _bytes(path)) for path in finished.values()),
        checks=checks,
        n_tiles=len(tiles),
        tiles=f"tiles of {parity_tiles.name}" if parity_tiles else "random tiles (none were given)",
    )


def _write_saved_model(bundle: Bundle, folder: Path) -> None:
    with _quiet():
        saved_model.write(bundle, folder)


def _write_tflite(saved_model: Path, file: Path) -> None:
    # From the SavedModel: converting the functions themselves gives a file that answers NaN.
    with _quiet():
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(saved_model), signature_keys=[parity.SIGNATURE]
        )
        content = converter.convert()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def _checked(bundle: Bundle, tiles: np.ndarray, draft: Path) -> tuple[parity.Check, ...]:
    """Runs the checks on the exports in folder `draft`, in a process that holds no model."""
    cases = saved_model_cases.keras_cases(bundle, tiles)
    if not all(case.is_finite() for case in cases):
        raise parity.ParityError(
            "the model itself gives numbers that are not finite; nothing was written"
        )
    parity.write_cases(draft / "expected.npz", cases)
    environment = {
        **os.environ,
        # The same modules as this process finds, in the same order.
        "PYTHONPATH": os.pathsep.join(
            [*filter(None, sys.path), str(Path(histospace_tf.__file__).parents[1])]
        ),
        # This process may hold all of an accelerator's memory; a CPU's float32 is exact besides.
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    child = subprocess.run(
        [sys.executable, "-P", "-m", "histospace_tf.parity", str(draft)],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
    )
    try:
        rows = json.loads((draft / "parity.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        last = "\n".join(child.stderr.strip().splitlines()[-20:])
        raise parity.ParityError(
            f"the process that checks the exports ended with code {child.returncode}: {last}"
        ) from None
    checks = tuple(parity.Check(**row) for row in rows)
    for check in checks:
        if check.agrees is False:
            gap = check.max_difference
            found = check.note if gap is None else f"the largest difference is {gap:.3g}"
            raise parity.ParityError(
                f"export {check.format!r}, loaded by {check.loader}, does not agree with Keras "
                f"within {parity.TOLERANCE:g}: {found}; nothing was written"
            )
    return checks


def keras_expression(bundle: Bundle, tiles: np.ndarray) -> np.ndarray:
    """What the single-tile model gives in Keras, on the CPU: what exports are held against.

    Args:
        tiles: (n, s, s, 3) uint8, stain-normalised.
    Returns:
        (n, g) float32 in the panel's unit.
    """
    with tf.device("/CPU:0"):
        parts = [
            bundle.single_tile_head(
                bundle.trunk(tiles[start : start + 16].astype(np.float32) / 255.0, training=False),
                training=False,
            ).numpy()
            for start in range(0, len(tiles), 16)
        ]
    return bundle.panel.to_unit(np.concatenate(parts))


def _parity_tiles(path: Path, tile_px: int) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as kept:
            tiles = kept["tile"]
    except FileNotFoundError:
        raise InputError(f"parity tiles {str(path)!r} do not exist") from None
    except Exception as error:  # NumPy raises many kinds for a file that is no .npz
        raise InputError(
            f"parity tiles {str(path)!r}: an .npz file with an array `tile` works ({error})"
        ) from None
    if tiles.ndim != 4 or tiles.shape[1:] != (tile_px, tile_px, 3) or tiles.dtype != np.uint8:
        raise InputError(
            f"parity tiles {str(path)!r}: `tile` is {tiles.dtype} {tiles.shape}; the model takes "
            f"uint8 (n, {tile_px}, {tile_px}, 3)"
        )
    if not len(tiles):
        raise InputError(f"parity tiles {str(path)!r}: `tile` is empty; at least one tile works")
    return tiles


def _random_tiles(tile_px: int) -> np.ndarray:
    """Smooth tiles of any colour, always the same: (n, tile_px, tile_px, 3) uint8."""
    coarse = np.random.default_rng(0).integers(0, 256, (RANDOM_TILES, 6, 6, 3), np.uint8)
    side = (tile_px, tile_px)
    return np.stack([cv2.resize(c, side, interpolation=cv2.INTER_CUBIC) for c in coarse])


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TensorFlow's running commentary off standard error; on an error it is shown after all.

    The converter writes past Python's streams, so the file descriptor itself is turned away.
    """
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            said.seek(0)
            os.write(2, said.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            logger.setLevel(level)
