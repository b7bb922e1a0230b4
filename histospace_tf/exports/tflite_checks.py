"""Runs .tflite files, holds them against Keras and times them, in processes without TensorFlow.

    python -m histospace_tf.exports.tflite_checks compare FOLDER
    python -m histospace_tf.exports.tflite_checks time FILE THREADS ROUNDS

`compare` runs FOLDER/*.tflite on the tiles of FOLDER/expected.npz (`write_expected`) and prints a
JSON list of `LiteCheck`; `time` prints one `Speed`. Both use LiteRT (ai-edge-litert, extra [edge])
where it is installed, else TensorFlow's own interpreter.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# LiteRT sums in another order; small deviations of a feature map, by which features are divided,
# enlarge that: 1.7e-4 at most over 283 tiles of a patient unlike the training side.
TOLERANCE = 1e-3
FEWEST_TILES = 8  # r over fewer says nothing
_BATCH = 16
_WARM_UP = 3


@dataclasses.dataclass(frozen=True)
class LiteCheck:
    """One .tflite variant beside Keras.

    bytes: of the file.
    runtime: "litert" or "tf.lite".
    max_difference, mean_difference: absolute, in the panel's unit; None where it does not run.
    r_with_keras: mean over genes of r between its expression and Keras', over the tiles.
    change_of_r: mean over genes of r with the measured values, less Keras' r with them; None
        where none were measured.
    genes: each gene's change of r (where none were measured: its r_with_keras - 1); None for a gene
        that is constant.
    exact: every value within atol + rtol * |Keras|, both TOLERANCE.
    note: why it cannot be judged or run.
    """

    variant: str
    bytes: int
    runtime: str
    max_difference: float | None = None
    mean_difference: float | None = None
    r_with_keras: float | None = None
    change_of_r: float | None = None
    genes: dict[str, float | None] = dataclasses.field(default_factory=dict)
    exact: bool = False
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Speed:
    """One tile at a time, in a process of its own.

    milliseconds: median over the rounds.
    megabytes: peak of the process less what it held before the model was loaded; None where the
        system does not tell (it is read from Linux' /proc).
    """

    threads: int
    milliseconds: float
    megabytes: float | None

    def words(self) -> str:
        memory = "" if self.megabytes is None else f", {self.megabytes:.0f} MB"
        return f"{self.milliseconds:.0f} ms{memory}"


def write_expected(
    file: Path,
    *,
    tile: np.ndarray,
    expression: np.ndarray,
    genes: Sequence[str],
    measured: np.ndarray | None,
) -> None:
    """Writes what `compare` holds variants against.

    Args:
        tile: (n, s, s, 3) uint8.
        expression: (n, g) float32 that Keras gives.
        measured: (n, g) in the same unit, or None.
    """
    kept = {"tile": tile, "expression": expression, "genes": np.array(genes)}
    if measured is not None:
        kept["measured"] = measured
    np.savez(file, **kept)  # type: ignore[arg-type]


class LiteModel:
    """A .tflite file, loaded: (n, tile_px, tile_px, 3) uint8 -> (n, g) float32, any n."""

    def __init__(self, file: Path, *, threads: int | None = None) -> None:
        with warnings.catch_warnings():
            # tf.lite.Interpreter announces that ai-edge-litert replaces it.
            warnings.simplefilter("ignore")
            self._interpreter = _runtime()[1](model_path=str(file), num_threads=threads)
        (self._tile,) = self._interpreter.get_input_details()
        (self._expression,) = self._interpreter.get_output_details()
        self.tile_px = int(self._tile["shape"][1])
        self._rows = 0

    def __call__(self, tile: np.ndarray) -> np.ndarray:
        if len(tile) != self._rows:
            self._interpreter.resize_tensor_input(self._tile["index"], tile.shape, strict=True)
            self._interpreter.allocate_tensors()
            self._rows = len(tile)
        self._interpreter.set_tensor(self._tile["index"], tile)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._expression["index"])


def compare(file: Path, expected: dict[str, np.ndarray]) -> LiteCheck:
    """One file beside Keras, here.

    Args:
        expected: the arrays of `write_expected`.
    """
    from histospace_tf.scores import metrics  # SciPy: `measure`, a process a figure, does without

    tile, right = expected["tile"], expected["expression"]
    about: dict[str, Any] = {
        "variant": file.stem.rpartition("_")[2],
        "bytes": file.stat().st_size,
        "runtime": _runtime()[0],
    }
    try:
        run = LiteModel(file, threads=2)
        parts = [run(tile[start : start + _BATCH]) for start in range(0, len(tile), _BATCH)]
        got, alone = np.concatenate(parts), run(tile[:1])
    except Exception as error:  # the runtime raises what it likes; all is reported
        return LiteCheck(**about, note=f"does not run: {type(error).__name__}: {error}")
    if got.shape != right.shape or {got.dtype, alone.dtype} != {np.dtype(np.float32)}:
        note = f"gives {got.dtype} {got.shape}, not {right.dtype} {right.shape}"
        return LiteCheck(**about, note=note)
    gap = np.abs(np.concatenate([got, alone]).astype(np.float64) - [*right, right[0]])
    if not math.isfinite(float(gap.max())):
        return LiteCheck(**about, note="gives numbers that are not finite")
    about |= {
        "max_difference": float(gap.max()),
        "mean_difference": float(gap.mean()),
        "exact": bool((gap <= TOLERANCE + TOLERANCE * np.abs([*right, right[0]])).all()),
    }
    if len(tile) < FEWEST_TILES:
        return LiteCheck(**about, note=f"{len(tile)} tiles cannot judge r; {FEWEST_TILES} can")
    with_keras = metrics.gene_r_each(got, right)
    each, change = with_keras - 1, None
    if "measured" in expected:
        measured = expected["measured"]
        each = metrics.gene_r_each(got, measured) - metrics.gene_r_each(right, measured)
        change = _mean(each)
    return LiteCheck(
        **about,
        r_with_keras=_mean(with_keras),
        change_of_r=change,
        genes={
            str(gene): None if math.isnan(value) else float(value)
            for gene, value in zip(expected["genes"], each, strict=True)
        },
    )


def measure(file: Path, *, threads: int, rounds: int) -> Speed:
    """Speed on one made tile, here: for a process that has done nothing else."""
    _runtime()
    before = _memory_mb("VmRSS")
    run = LiteModel(file, threads=threads)
    side = run.tile_px
    tile = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    seconds = []
    for _ in range(_WARM_UP + rounds):
        start = time.perf_counter()
        run(tile)
        seconds.append(time.perf_counter() - start)
    after = _memory_mb("VmHWM")
    used = None if before is None or after is None else after - before
    return Speed(threads, 1000 * statistics.median(seconds[_WARM_UP:]), used)


def main(arguments: Sequence[str]) -> int:
    """The commands of the module's beginning."""
    match list(arguments):
        case ["compare", folder]:
            with np.load(Path(folder) / "expected.npz", allow_pickle=False) as kept:
                expected = {name: kept[name] for name in kept.files}
            files = sorted(Path(folder).glob("*.tflite"))
            checks = [dataclasses.asdict(compare(file, expected)) for file in files]
            print(json.dumps(checks))
        case ["time", file, threads, rounds]:
            speed = measure(Path(file), threads=int(threads), rounds=int(rounds))
            print(json.dumps(dataclasses.asdict(speed)))
        case _:
            print("usage: compare FOLDER | time FILE THREADS ROUNDS", file=sys.stderr)
            return 2
    return 0


def _runtime() -> tuple[str, Any]:
    """Name and class of the interpreter for .tflite files."""
    try:
        from ai_edge_litert.interpreter import Interpreter

        return "litert", Interpreter
    except ImportError:
        import tensorflow as tf

        return "tf.lite", tf.lite.Interpreter


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _memory_mb(name: str) -> float | None:
    # Not resource.getrusage: a process started from a large one is charged the large one's peak.
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    lines = [line for line in status.splitlines() if line.startswith(f"{name}:")]
    return int(lines[0].split()[1]) / 1000 if lines else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
