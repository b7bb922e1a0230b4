"""A trained model -> a SavedModel for TF Serving, .tflite files for devices, an .onnx, all checked.

out/saved_model/1/              of `histospace_tf.exports.saved_model`: the whole model
out/tflite/histospace_*.tflite  of `lite.VARIANTS`: the single-tile model
out/tflite/export_report.json   how each variant differs from Keras, gene by gene
out/onnx/histospace.onnx        of `onnx_model`: the single-tile model
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from histospace_tf import outputs
from histospace_tf.bundle import Bundle
from histospace_tf.exports import (
    export_tiles,
    fresh_process,
    lite,
    lite_checks,
    lite_gate,
    onnx_model,
    parity,
    saved_model,
    saved_model_cases,
)
from histospace_tf.vocabulary import InputError

FORMATS = ("saved_model", "tflite", "onnx")
PLACES = {
    "saved_model": Path("saved_model", "1"),
    "tflite": Path("tflite"),
    "onnx": parity.ONNX_FILE.parent,
}
# Rounding shows on any tile: more would take time and say no more.
SAVED_MODEL_TILES = 8
REPORT_NAME = "export_report.json"
NOT_FINITE = "the model itself gives numbers that are not finite; nothing was written"


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares with Keras.

    files: each exported folder or file, and its size in bytes.
    checks: of `parity.run_checks`: the SavedModel on SAVED_MODEL_TILES of the tiles, the .onnx on
        all.
    n_tiles, tiles: how many there are, and where they came from; .tflite variants see all.
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
        few = f" (SavedModel: {SAVED_MODEL_TILES})" if self.n_tiles > SAVED_MODEL_TILES else ""
        lines.append(f"Difference from Keras on {self.n_tiles} {self.tiles}{few}:")
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
    name. A .tflite variant that loses more than `lite_gate.MOST_LOST_R` of mean r is left out, and
    the .onnx where the extra `onnx` is missing; the latter is said here.

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
            parity tiles, nothing but "onnx" asked for without its extra.
        CheckError: the SavedModel, the .onnx or the float32 .tflite differs from Keras by more than
            the TOLERANCE of `parity` or `lite_checks`, or does not run.
    """
    if not formats or set(formats) - set(FORMATS):
        unknown = ", ".join(repr(name) for name in formats if name not in FORMATS) or "none"
        raise InputError(f"export format {unknown}; {' or '.join(FORMATS)} works")
    reason = onnx_model.why_not() if "onnx" in formats else None
    if reason and set(formats) == {"onnx"}:
        raise InputError(f"{reason}; nothing was written")
    if out.exists() and not out.is_dir():
        raise InputError(f"{str(out)!r} is a file; a folder, new or not, works")
    if reason:
        outputs.say(f"No .onnx: {reason}.")
        formats = [name for name in formats if name != "onnx"]
    finished = {name: out / PLACES[name] for name in FORMATS if name in formats}
    for path in finished.values():
        outputs.refuse_finished(path, force=force)
    side = bundle.config.tiles.tile_px
    given = export_tiles.read(parity_tiles, bundle) if parity_tiles else None
    kept = given or {"tile": export_tiles.made(side)}
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
        with outputs.scratch_folder(out / "export") as draft:
            checks, passed = _drafted(bundle, kept, draft, formats, keep_all=keep_all, timed=timed)
            report = dataclasses.replace(report, checks=checks, lite=passed)
            if passed:
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
    written = []
    for name, path in finished.items():
        written += [path] if name == "saved_model" else sorted(path.glob(f"*.{name}"))
    return dataclasses.replace(report, files=tuple((path, _bytes(path)) for path in written))


def _drafted(
    bundle: Bundle,
    kept: dict[str, np.ndarray],
    draft: Path,
    formats: Sequence[str],
    *,
    keep_all: bool,
    timed: bool,
) -> tuple[tuple[parity.Check, ...], lite_gate.LiteReport | None]:
    """Writes the formats into folder `draft` and checks them there."""
    tiles, cases, passed = kept["tile"], [], None
    # All others are converted from it; not asked for itself, it lies where nothing looks for it.
    source = draft / (PLACES["saved_model"] if "saved_model" in formats else "source")
    with _quiet():
        lacking = saved_model.write(bundle, source)
        if "onnx" in formats:
            onnx_model.write(source, draft / parity.ONNX_FILE, bundle, signature=parity.SIGNATURE)
    expression = keras_expression(bundle, tiles)
    if not np.isfinite(expression).all():
        raise parity.ParityError(NOT_FINITE)
    if "saved_model" in formats:
        for line in lacking:  # said only now: above, standard error is turned away
            outputs.say(line)
        cases += saved_model_cases.keras_cases(bundle, tiles[:SAVED_MODEL_TILES])
    if "onnx" in formats:
        cases.append(parity.Case(parity.ONNX, {"tile": tiles}, {"expression": expression}))
    with ThreadPoolExecutor(max_workers=1) as beside:
        # The process that checks waits mostly for one core; converting takes another meanwhile.
        checks = beside.submit(_checked, cases, draft)
        if "tflite" in formats:
            passed = _lite(bundle, kept, expression, source, draft / "tflite", keep_all=keep_all)
    found = checks.result()
    if passed and timed:
        passed = lite_gate.timed(passed, draft / "tflite")
    return found, passed


def _lite(
    bundle: Bundle,
    kept: dict[str, np.ndarray],
    expression: np.ndarray,
    source: Path,
    folder: Path,
    *,
    keep_all: bool,
) -> lite_gate.LiteReport:
    """Writes the .tflite variants of a SavedModel into `folder`, and judges them."""
    with _quiet():
        not_made = lite.write_variants(
            source,
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
    report = lite_gate.passed(folder, keep_all=keep_all)
    expected.unlink()
    return dataclasses.replace(report, left_out={**report.left_out, **not_made})


def _checked(cases: Sequence[parity.Case], draft: Path) -> tuple[parity.Check, ...]:
    """Runs the checks on the exports in folder `draft`, in a process that holds no model."""
    if not cases:
        return ()
    if not all(case.is_finite() for case in cases):
        raise parity.ParityError(NOT_FINITE)
    parity.write_cases(draft / "expected.npz", cases)
    # TensorFlow imports Keras, which no SavedModel needs, where it finds it: half its seconds.
    child = fresh_process.run_module(parity.__name__, str(draft), without=["keras"])
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
