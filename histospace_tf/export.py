"""A trained model -> a SavedModel for TF Serving and a .tflite file for devices, both checked.

out/saved_model/1/              of `histospace_tf.saved_model`: the whole model
out/tflite/histospace_*.tflite  of `lite.VARIANTS`: the single-tile model
out/tflite/export_report.json   how each variant differs from Keras, gene by gene
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf

from histospace_tf import (
    fresh_process,
    lite,
    lite_checks,
    lite_gate,
    outputs,
    parity,
    saved_model,
    saved_model_cases,
)
from histospace_tf.bundle import Bundle
from histospace_tf.vocabulary import InputError

FORMATS = ("saved_model", "tflite")
RANDOM_TILES = 8
# Rounding shows on any tile: more would take time and say no more.
SAVED_MODEL_TILES = 16
REPORT_NAME = "export_report.json"
NOT_FINITE = "the model itself gives numbers that are not finite; nothing was written"


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares with Keras.

    files: each exported folder or file, and its size in bytes.
    checks: of `parity.run_checks`, on SAVED_MODEL_TILES of the tiles.
    n_tiles, tiles: how many .tflite variants were compared on, and where they came from.
    lite: of the .tflite variants; None where those were not asked for.
    """

    files: tuple[tuple[Path, int], ...]
    checks: tuple[parity.Check, ...]
    n_tiles: int
    tiles: str
    lite: lite_gate.LiteReport | None = None

    def summary(self) -> str:
        """The report as text of a few lines."""
        lines = [f"{path}  {size / 1e6:.2f} MB" for path, size in self.files]
        lines.append(f"Difference from Keras on {self.n_tiles} {self.tiles}:")
        if self.checks:
            lines.append(parity.table(self.checks))
        if self.lite:
            lines.append(self.lite.table())
        return "\n".join(lines)


def export(
    bundle: Bundle,
    out: Path,
    *,
    parity_tiles: Path | None,
    formats: Sequence[str] = FORMATS,
    force: bool = False,
    keep_all: bool = False,
    timed: bool = True,
) -> ExportReport:
    """Writes a model's exports into `out`, each whole and checked, or not at all.

    The checks run in fresh processes (`parity`, `lite_checks`) before anything takes its final
    name. A .tflite variant that loses more than `lite_gate.MOST_LOST_R` of mean r is left out.

    Args:
        out: folder, new or not.
        parity_tiles: .npz of `paired.parity_tiles`; its `tile` is enough. None: random smooth
            tiles, which the report says.
        formats: of FORMATS.
        force: replace finished exports.
        keep_all: write .tflite variants that lose more, too.
        timed: measure the .tflite variants' time and memory.
    Raises:
        InputError: an unknown format, `out` a file, an export that is there already, unusable
            parity tiles.
        CheckError: the SavedModel or the float32 .tflite differs from Keras by more than the
            TOLERANCE of `parity` or `lite_checks`, or does not run.
    """
    if not formats or set(formats) - set(FORMATS):
        unknown = ", ".join(repr(name) for name in formats if name not in FORMATS) or "none"
        raise InputError(f"export format {unknown}; {' or '.join(FORMATS)} works")
    if out.exists() and not out.is_dir():
        raise InputError(f"{str(out)!r} is a file; a folder, new or not, works")
    finished = {"saved_model": out / "saved_model" / "1", "tflite": out / "tflite"}
    finished = {name: finished[name] for name in FORMATS if name in formats}
    for path in finished.values():
        outputs.refuse_finished(path, force=force)
    tile_px = bundle.config.tiles.tile_px
    kept = _parity_tiles(parity_tiles, bundle) if parity_tiles else {"tile": _random_tiles(tile_px)}
    tiles = kept["tile"]
    report = ExportReport(
        files=(),
        checks=(),
        n_tiles=len(tiles),
        tiles=f"tiles of {parity_tiles.name}" if parity_tiles else "random tiles (none were given)",
    )
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".export.", dir=out) as scratch:
            draft = Path(scratch)
            # Said only now: within, standard error is turned away.
            with _quiet():
                lacking = saved_model.write(bundle, draft / "saved_model" / "1")
            if "saved_model" in formats:
                for line in lacking:
                    outputs.say(line)
                checks = _checked(bundle, tiles[:SAVED_MODEL_TILES], draft)
                report = dataclasses.replace(report, checks=checks)
            if "tflite" in formats:
                passed = _lite(bundle, kept, draft, keep_all=keep_all, timed=timed)
                report = dataclasses.replace(report, lite=passed)
                values = {"tiles": f"{len(tiles)} {report.tiles}", **passed.to_json()}
                text = json.dumps(values, indent=1)
                (draft / "tflite" / REPORT_NAME).write_text(text, encoding="utf-8")
            for path in finished.values():
                path.parent.mkdir(parents=True, exist_ok=True)
                outputs.put_in_place(draft / path.relative_to(out), path)
    except BaseException:
        with contextlib.suppress(OSError):
            for folder in missing:
                folder.rmdir()
        raise
    written = [finished[name] for name in finished if name != "tflite"]
    if "tflite" in finished:
        written += sorted(finished["tflite"].glob("*.tflite"))
    return dataclasses.replace(report, files=tuple((path, _bytes(path)) for path in written))


def _lite(
    bundle: Bundle, kept: dict[str, np.ndarray], draft: Path, *, keep_all: bool, timed: bool
) -> lite_gate.LiteReport:
    """Writes and judges the .tflite variants of the SavedModel in folder `draft`."""
    folder = draft / "tflite"
    expression = _finite_expression(bundle, kept["tile"])
    with _quiet():
        not_made = lite.write_variants(
            draft / "saved_model" / "1",
            folder,
            bundle,
            signature=parity.SIGNATURE,
            training_tiles=kept.get("training_tile"),
        )
    expected = folder / "expected.npz"
    lite_checks.write_expected(
        expected,
        tile=kept["tile"],
        expression=expression,
        genes=bundle.panel.genes,
        measured=kept.get("measured"),
    )
    report = lite_gate.passed(folder, keep_all=keep_all, timed=timed)
    expected.unlink()
    return dataclasses.replace(report, left_out={**report.left_out, **not_made})


def _checked(bundle: Bundle, tiles: np.ndarray, draft: Path) -> tuple[parity.Check, ...]:
    """Runs the checks on the exports in folder `draft`, in a process that holds no model."""
    cases = saved_model_cases.keras_cases(bundle, tiles)
    if not all(case.is_finite() for case in cases):
        raise parity.ParityError(NOT_FINITE)
    parity.write_cases(draft / "expected.npz", cases)
    child = fresh_process.run_module(parity.__name__, str(draft))
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
                f"within {check.atol:g}: {found}; nothing was written"
            )
    return checks


def _finite_expression(bundle: Bundle, tiles: np.ndarray) -> np.ndarray:
    expression = keras_expression(bundle, tiles)
    if not np.isfinite(expression).all():
        raise parity.ParityError(NOT_FINITE)
    return expression


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


def _parity_tiles(path: Path, bundle: Bundle) -> dict[str, np.ndarray]:
    """Arrays of `paired.parity_tiles`: "tile", and those of the others that are there."""
    side = bundle.config.tiles.tile_px
    try:
        with np.load(path, allow_pickle=False) as file:
            names = {"tile", *({"measured", "training_tile"} & set(file.files))}
            kept = {name: file[name] for name in names}
    except FileNotFoundError:
        raise InputError(f"parity tiles {str(path)!r} do not exist") from None
    except Exception as error:  # NumPy raises many kinds for a file that is no .npz
        raise InputError(
            f"parity tiles {str(path)!r}: an .npz file with an array `tile` works ({error})"
        ) from None
    for name in sorted(names - {"measured"}):
        tiles = kept[name]
        if tiles.ndim != 4 or tiles.shape[1:] != (side, side, 3) or tiles.dtype != np.uint8:
            raise InputError(
                f"parity tiles {str(path)!r}: `{name}` is {tiles.dtype} {tiles.shape}; the model "
                f"takes uint8 (n, {side}, {side}, 3)"
            )
        if not len(tiles):
            raise InputError(
                f"parity tiles {str(path)!r}: `{name}` is empty; at least one tile works"
            )
    right = (len(kept["tile"]), len(bundle.panel))
    if "measured" in kept and (
        kept["measured"].shape != right or not np.isfinite(kept["measured"]).all()
    ):
        raise InputError(
            f"parity tiles {str(path)!r}: `measured` has shape {kept['measured'].shape}; finite "
            f"numbers of shape {right} are needed, a row a tile"
        )
    return kept


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
