"""Which exports are good enough to be written: each is run in a process that holds nothing else.

A SavedModel and an .onnx have to give Keras' own numbers (`parity`). Of the .tflite variants those
stay that lose little, and they are timed (`tflite_checks`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import histospace_tf
from histospace_tf.exports import parity, tflite, tflite_checks
from histospace_tf.exports.tflite_checks import TOLERANCE, LiteCheck, Speed
from histospace_tf.vocabulary import CheckError

# Of mean r per gene: a variant that loses more is left out.
MOST_LOST_R = 0.01
THREADS = (1, 2)  # that variants are timed on
NOT_FINITE = "the model itself gives numbers that are not finite; nothing was written"


_WITHOUT = """
import runpy, sys
names, module = sys.argv[1:3]
del sys.argv[1:3]
sys.modules.update(dict.fromkeys(names.split(",")))
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@dataclasses.dataclass(frozen=True)
class LiteReport:
    """What became of each variant.

    checks: of the variants that could be made, in the order of tflite.VARIANTS.
    left_out: variant -> why there is no file of it.
    speeds: variant -> one for each of THREADS; empty where nothing was timed.
    """

    checks: tuple[LiteCheck, ...]
    left_out: dict[str, str]
    speeds: dict[str, list[Speed]]

    def table(self) -> str:
        """A line a variant."""
        threads = THREADS if self.speeds else ()
        heads = [f"{n} thread{'s' * (n > 1)}" for n in threads]
        lines = [
            f"{'tflite':<9} {'bytes':>9} {'largest difference':>18} {'mean':>8} "
            f"{'r with Keras':>12} {'change of r':>11}" + "".join(f"{head:>15}" for head in heads)
        ]
        for c in self.checks:
            gaps = ["-" if d is None else f"{d:.1e}" for d in (c.max_difference, c.mean_difference)]
            r = "-" if c.r_with_keras is None else f"{c.r_with_keras:.4f}"
            change = "-" if c.change_of_r is None else f"{c.change_of_r:+.4f}"
            times = self.speeds.get(c.variant, [])
            why = f"  left out: {self.left_out[c.variant]}" if c.variant in self.left_out else ""
            lines.append(
                f"{c.variant:<9} {c.bytes:>9,} {gaps[0]:>18} {gaps[1]:>8} {r:>12} {change:>11}"
                + "".join(f"{speed.words():>15}" for speed in times)
                + why
            )
        return "\n".join(
            [*lines, *(f"{name:<9} left out: {why}" for name, why in self._not_made().items())]
        )

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON: bytes, the panel's unit, milliseconds and megabytes."""
        return {
            "most_lost_r": MOST_LOST_R,
            "variants": [
                {
                    **dataclasses.asdict(check),
                    "left_out": self.left_out.get(check.variant),
                    "speeds": [dataclasses.asdict(s) for s in self.speeds.get(check.variant, [])],
                }
                for check in self.checks
            ],
            "not_made": self._not_made(),
        }

    def _not_made(self) -> dict[str, str]:
        made = {check.variant for check in self.checks}
        return {name: why for name, why in self.left_out.items() if name not in made}


def checked(cases: Sequence[parity.Case], draft: Path) -> tuple[parity.Check, ...]:
    """Runs the checks on the exports in folder `draft`, in a process that holds no model."""
    if not cases:
        return ()
    if not all(case.is_finite() for case in cases):
        raise parity.ParityError(NOT_FINITE)
    parity.write_cases(draft / "expected.npz", cases)
    # TensorFlow imports Keras, which no SavedModel needs, where it finds it: half its seconds.
    there = [form for form in parity.FORMATS.values() if (draft / form.path).exists()]
    without = [] if any(form.needs_keras for form in there) else ["keras"]
    child = run_module(parity.__name__, str(draft), without=without)
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
            reason = check.note if gap is None else f"the largest difference is {gap:.3g}"
            raise parity.ParityError(
                f"export {check.format!r}, loaded by {check.loader}, does not agree with Keras "
                f"within {check.atol:g}: {reason}; nothing was written"
            )
    return checks


def compared(folder: Path) -> list[LiteCheck]:
    """`tflite_checks compare` in a fresh process.

    Raises:
        CheckError: the process ended without an answer.
    """
    done = run_module(tflite_checks.__name__, "compare", str(folder))
    return [LiteCheck(**row) for row in _answer(done.returncode, done.stdout, done.stderr)]


def speed(file: Path, *, threads: int, rounds: int = 10) -> Speed:
    """`tflite_checks time` in a fresh process.

    Raises:
        CheckError: the process ended without an answer.
    """
    done = run_module(tflite_checks.__name__, "time", str(file), str(threads), str(rounds))
    return Speed(**_answer(done.returncode, done.stdout, done.stderr))


def passed(folder: Path, *, keep_all: bool) -> LiteReport:
    """Compares the variants in `folder` with its expected.npz, and deletes those that fall short.

    Args:
        folder: of `tflite.write_variants`, with `tflite_checks.write_expected`'s file beside them.
        keep_all: keep what runs, whatever it loses.
    Raises:
        CheckError: the float32 variant differs from Keras by more than TOLERANCE.
    """
    order = {variant: number for number, variant in enumerate(tflite.VARIANTS)}
    checks = sorted(compared(folder), key=lambda check: order[check.variant])
    left_out = {}
    for check in checks:
        if check.variant == "float32" and not check.exact:
            reason = check.note or f"the largest difference is {check.max_difference:.3g}"
            raise CheckError(
                f"export {tflite.file_name('float32')!r} does not agree with Keras within "
                f"{TOLERANCE:g}: {reason}; nothing was written"
            )
        lacking = objection(check)
        if lacking and not (keep_all and check.max_difference is not None):
            left_out[check.variant] = lacking
            (folder / tflite.file_name(check.variant)).unlink()
    return LiteReport(tuple(checks), left_out, {})


def timed(report: LiteReport, folder: Path) -> LiteReport:
    """The same with time and memory of each variant in `folder`: while nothing else runs."""
    speeds = {
        check.variant: [
            speed(folder / tflite.file_name(check.variant), threads=threads) for threads in THREADS
        ]
        for check in report.checks
        if check.variant not in report.left_out
    }
    return dataclasses.replace(report, speeds=speeds)


def objection(check: LiteCheck) -> str | None:
    """Why a variant should be left out; None: it should not."""
    if check.exact:
        return None
    if check.note:
        return check.note
    lost, of = check.change_of_r, "mean r per gene"
    if lost is None and check.r_with_keras is not None:
        lost, of = check.r_with_keras - 1, "r with Keras"
    if lost is None:
        return "no gene differs between the tiles, so r says nothing"
    if -lost > MOST_LOST_R:
        return f"loses {-lost:.5f} of {of}; {MOST_LOST_R:g} is the most"
    return None


def run_module(
    module: str, *arguments: str, without: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """`python -m module arguments` with this process' modules, on the CPU; its output as text.

    Args:
        without: top-level packages that cannot be imported there, as if they were not installed.
    """
    start = ["-c", _WITHOUT, ",".join(without), module] if without else ["-m", module]
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
    return subprocess.run(
        [sys.executable, "-P", *start, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
    )


def _answer(code: int, said: str, errors: str) -> Any:
    try:
        return json.loads(said.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        last = "\n".join(errors.strip().splitlines()[-20:])
        raise CheckError(
            f"the process that runs the .tflite files ended with code {code}: {last}"
        ) from None
