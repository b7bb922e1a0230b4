"""A trained model -> a SavedModel for TF Serving, .tflite files for devices, an .onnx, all checked.

out/saved_model/1/              of `histospace_tf.exports.saved_model`: the whole model
out/tflite/histospace_*.tflite  of `tflite.VARIANTS`: the single-tile model
out/tflite/export_report.json   how each variant differs from Keras, gene by gene
out/onnx/histospace.onnx        of `exports.onnx`: the single-tile model
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from histospace_tf import bundle_file, outputs
from histospace_tf.bundle import Bundle
from histospace_tf.exports import expected, gate, parity, saved_model, tflite, tflite_checks
from histospace_tf.exports.parity import FORMATS
from histospace_tf.vocabulary import InputError

# Rounding shows on any tile: more would take time and say no more.
SAVED_MODEL_TILES = 8
REPORT_NAME = "export_report.json"


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares with Keras.

    files: each exported folder or file, and its size in bytes.
    checks: of `parity.run_checks`: the SavedModel on SAVED_MODEL_TILES of the tiles, the .onnx on
        all.
    n_tiles, tiles: how many there are, and where they came from; .tflite variants are run on all.
    lite: of the .tflite variants; None where those were not asked for.
    """

    files: tuple[tuple[Path, int], ...]
    checks: tuple[parity.Check, ...]
    n_tiles: int
    tiles: str
    lite: gate.LiteReport | None = None

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
    formats: Sequence[str] = tuple(FORMATS),
    force: bool = False,
    keep_all: bool = False,
    timed: bool = True,
) -> ExportReport:
    """Writes a model's exports into `out`, each whole and checked, or not at all.

    The checks run in fresh processes (`gate`) before anything takes its final name. A .tflite
    variant that loses more than `gate.MOST_LOST_R` of mean r is left out, and the .onnx where the
    extra `onnx` is missing; the latter is said here.

    Args:
        out: folder, new or not.
        parity_tiles: .npz of `paired.parity_tiles`; its `tile` is enough. None: random smooth
            tiles, which the report says.
        formats: of FORMATS.
        force: replace finished exports.
        keep_all: write .tflite variants that lose more, too.
        timed: measure the .tflite variants' time and memory.
    Raises:
        InputError: an unknown format, an encoder that exports cannot hold, `out` a file, an export
            that is there already, unusable parity tiles, nothing but "onnx" asked for without its
            extra.
        CheckError: the SavedModel, the .onnx or the float32 .tflite differs from Keras by more than
            the TOLERANCE of `parity` or `tflite_checks`, or does not run.
    """
    if not formats or set(formats) - set(FORMATS):
        unknown = ", ".join(repr(name) for name in formats if name not in FORMATS) or "none"
        raise InputError(f"export format {unknown}; {' or '.join(FORMATS)} works")
    if (why := bundle_file.why_no_export(bundle.trained_on, bundle.network)) is not None:
        raise InputError(f"nothing can be exported: {why}")
    reasons = {name: _converter(name).why_not() for name in _converted(formats)}
    absent = {name: reason for name, reason in reasons.items() if reason is not None}
    if absent and set(formats) == set(absent):
        raise InputError(f"{'; '.join(absent.values())}; nothing was written")
    if out.exists() and not out.is_dir():
        raise InputError(f"{str(out)!r} is a file; a folder, new or not, works")
    for name, reason in absent.items():
        outputs.say(f"No .{name}: {reason}.")
    formats = [name for name in formats if name not in absent]
    finished = {name: out / form.folder for name, form in FORMATS.items() if name in formats}
    for path in finished.values():
        outputs.refuse_finished(path, force=force)
    side = bundle.config.tiles.tile_px
    given = expected.parity_tiles(parity_tiles, bundle) if parity_tiles else None
    kept = given or {"tile": expected.made_tiles(side)}
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
) -> tuple[tuple[parity.Check, ...], gate.LiteReport | None]:
    """Writes the formats into folder `draft` and checks them there."""
    tiles, cases, passed = kept["tile"], [], None
    # All others are converted from it; if it is not asked for, it is kept out of their way.
    source = draft / (FORMATS["saved_model"].path if "saved_model" in formats else "source")
    with _quiet():
        lacking = saved_model.write(bundle, source)
        for name in _converted(formats):
            file = draft / FORMATS[name].path
            _converter(name).write(source, file, bundle, signature=parity.SIGNATURE)
    expression = expected.keras_expression(bundle, tiles)
    if not np.isfinite(expression).all():
        raise parity.ParityError(gate.NOT_FINITE)
    if "saved_model" in formats:
        for line in lacking:  # said only now: above, standard error is turned away
            outputs.say(line)
        cases += expected.keras_cases(bundle, tiles[:SAVED_MODEL_TILES])
    cases += [
        parity.Case(name, {"tile": tiles}, {"expression": expression})
        for name in _converted(formats)
    ]
    with ThreadPoolExecutor(max_workers=1) as beside:
        # The process that checks waits mostly for one core; converting takes another meanwhile.
        checks = beside.submit(gate.checked, cases, draft)
        if "tflite" in formats:
            passed = _lite(bundle, kept, expression, source, draft / "tflite", keep_all=keep_all)
    agreeing = checks.result()
    if passed and timed:
        passed = gate.timed(passed, draft / "tflite")
    return agreeing, passed


def _converted(formats: Sequence[str]) -> list[str]:
    """Those of some formats that one signature of the SavedModel is converted to, unchanged."""
    return [name for name in FORMATS if name in formats and name not in ("saved_model", "tflite")]


def _converter(name: str) -> Any:
    """The module that makes such a format, as the docstring of `parity` says."""
    return importlib.import_module(f"{parity.__name__.rpartition('.')[0]}.{name}")


def _lite(
    bundle: Bundle,
    kept: dict[str, np.ndarray],
    expression: np.ndarray,
    source: Path,
    folder: Path,
    *,
    keep_all: bool,
) -> gate.LiteReport:
    """Writes the .tflite variants of a SavedModel into `folder`, and judges them."""
    with _quiet():
        not_made = tflite.write_variants(
            source,
            folder,
            bundle,
            signature=parity.SIGNATURE,
            training_tiles=kept.get("training_tile"),
        )
    right = folder / "expected.npz"
    tflite_checks.write_expected(
        right,
        tile=kept["tile"],
        expression=expression,
        genes=bundle.panel.genes,
        measured=kept.get("measured"),
    )
    report = gate.passed(folder, keep_all=keep_all)
    right.unlink()
    return dataclasses.replace(report, left_out={**report.left_out, **not_made})


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
