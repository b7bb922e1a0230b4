"""Checks an export against Keras' own numbers: `python -m histospace_tf.parity FOLDER`.

For a fresh process: exports are loaded by TensorFlow alone, without a Keras model, without this
package's layers and without anything else that the exporting process held.

    FOLDER/saved_model/1/      checked by two loaders
    FOLDER/expected.npz        tile (n, s, s, 3) uint8; Keras' expression (n, g) float32; genes (g,)
    FOLDER/parity.json         written: one `Check` a loader

Loaders: "python" is tf.saved_model.load; "c++" is TensorFlow's C++ loader, the one that TF Serving
uses, through the C API of the installed wheel. Each runs all tiles as one batch, then the first
tile alone. A .tflite is checked by `histospace_tf.lite_checks`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from histospace_tf.cpp_loader import CppModel, NotHere
from histospace_tf.vocabulary import CheckError

# float32 sums in another order differ by about 1e-6 of their size.
TOLERANCE = 1e-4
SIGNATURE = "serving_default"


class ParityError(CheckError):
    """An export does not give what Keras gives, or could not be run."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One exported format in one loader, beside Keras.

    max_difference, mean_difference: absolute, in the panel's unit; None where it was not run.
    agrees: every value within atol + rtol * |Keras|; None where it was not run, as `note` says.
    """

    format: str
    loader: str
    max_difference: float | None = None
    mean_difference: float | None = None
    agrees: bool | None = None
    note: str = ""


def run_checks(folder: Path, *, rtol: float = TOLERANCE, atol: float = TOLERANCE) -> list[Check]:
    """Every check of the exports in `folder`, in the module docstring's layout.

    Raises:
        ParityError: nothing to check, or no expected.npz.
    """
    try:
        with np.load(folder / "expected.npz", allow_pickle=False) as kept:
            expected = {name: kept[name] for name in ("tile", "expression", "genes")}
    except (OSError, KeyError, ValueError) as error:
        raise ParityError(f"{folder / 'expected.npz'} is not readable: {error}") from None
    saved_model = folder / "saved_model" / "1"
    if not saved_model.is_dir():
        raise ParityError(f"{folder} holds no saved_model/1")
    runs: list[tuple[str, str, Callable[[], _Run]]] = [
        ("saved_model", "python", functools.partial(_python_run, saved_model)),
        ("saved_model", "c++", functools.partial(_cpp_run, saved_model)),
    ]
    return [_checked(name, loader, run, expected, rtol, atol) for name, loader, run in runs]


@dataclasses.dataclass(frozen=True)
class _Run:
    """A loaded export: tiles -> expression; and gene indices -> symbols, where it has them."""

    expression: Callable[[np.ndarray], np.ndarray]
    symbols: Callable[[np.ndarray], list[str]] | None = None


def _checked(
    name: str,
    loader: str,
    load: Callable[[], _Run],
    expected: Mapping[str, np.ndarray],
    rtol: float,
    atol: float,
) -> Check:
    tile, right = expected["tile"], expected["expression"]
    try:
        run = load()
        got = np.concatenate([run.expression(tile), run.expression(tile[:1])])
        genes = [str(gene) for gene in expected["genes"]]
        if run.symbols is not None and run.symbols(np.arange(len(genes))) != genes:
            return Check(name, loader, agrees=False, note="its gene list is not the panel's")
    except NotHere as reason:
        return Check(name, loader, note=str(reason))
    except Exception as error:  # a loader of another kind raises what it likes; all is reported
        return Check(name, loader, agrees=False, note=f"{type(error).__name__}: {error}")
    right = np.concatenate([right, right[:1]])
    if got.shape != right.shape or got.dtype != np.float32:
        note = f"gives {got.dtype} {got.shape}, not {right.dtype} {right.shape}"
        return Check(name, loader, agrees=False, note=note)
    gap = np.abs(got.astype(np.float64) - right)
    largest, mean = float(gap.max()), float(gap.mean())
    if not math.isfinite(largest):
        return Check(name, loader, agrees=False, note="gives numbers that are not finite")
    return Check(name, loader, largest, mean, bool((gap <= atol + rtol * np.abs(right)).all()))


def _python_run(folder: Path) -> _Run:
    signatures = tf.saved_model.load(str(folder)).signatures

    def expression(tile: np.ndarray) -> np.ndarray:
        return signatures[SIGNATURE](tile=tf.constant(tile))["expression"].numpy()

    def symbols(index: np.ndarray) -> list[str]:
        got = signatures["genes"](index=tf.constant(index, tf.int32))["symbol"]
        return [symbol.decode() for symbol in got.numpy()]

    return _Run(expression, symbols)


def _cpp_run(folder: Path) -> _Run:
    model = CppModel(folder)

    def symbols(index: np.ndarray) -> list[str]:
        got = model.run("genes", {"index": index.astype(np.int32)})["symbol"]
        return [symbol.decode() for symbol in got]

    return _Run(lambda tile: model.run(SIGNATURE, {"tile": tile})["expression"], symbols)


def main(folder: Path) -> int:
    """Runs the checks, writes parity.json and prints a line a check; 0 if none fails."""
    checks = run_checks(folder)
    text = json.dumps([dataclasses.asdict(check) for check in checks], indent=1)
    (folder / "parity.json").write_text(text, encoding="utf-8")
    print(table(checks))
    return int(any(check.agrees is False for check in checks))


def table(checks: list[Check] | tuple[Check, ...]) -> str:
    """Checks as lines of text."""
    lines = [f"{'format':<22} {'loader':<8} {'largest difference':>18} {'mean':>9}  agrees"]
    for c in checks:
        gaps = ["" if d is None else f"{d:.1e}" for d in (c.max_difference, c.mean_difference)]
        verdict = {True: "yes", False: "NO", None: "-"}[c.agrees]
        note = f" ({c.note})" if c.note else ""
        lines.append(f"{c.format:<22} {c.loader:<8} {gaps[0]:>18} {gaps[1]:>9}  {verdict}{note}")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m histospace_tf.parity FOLDER")
    try:
        sys.exit(main(Path(sys.argv[1])))
    except ParityError as problem:
        sys.exit(str(problem))
