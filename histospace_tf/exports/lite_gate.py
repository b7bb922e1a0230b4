"""Which .tflite variants are good enough to be written, and how fast those are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from histospace_tf.exports import lite, lite_checks
from histospace_tf.exports.lite_checks import TOLERANCE, LiteCheck, Speed
from histospace_tf.vocabulary import CheckError

# Of mean r per gene: a variant that loses more is left out.
MOST_LOST_R = 0.01
THREADS = (1, 2)  # that variants are timed on


@dataclasses.dataclass(frozen=True)
class LiteReport:
    """What became of each variant.

    checks: of the variants that could be made, in the order of lite.VARIANTS.
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


def passed(folder: Path, *, keep_all: bool) -> LiteReport:
    """Compares the variants in `folder` with its expected.npz, and deletes those that fall short.

    Args:
        folder: of `lite.write_variants`, with `lite_checks.write_expected`'s file beside them.
        keep_all: keep what runs, whatever it loses.
    Raises:
        CheckError: the float32 variant differs from Keras by more than TOLERANCE.
    """
    order = {variant: number for number, variant in enumerate(lite.VARIANTS)}
    checks = sorted(lite_checks.compared(folder), key=lambda check: order[check.variant])
    left_out = {}
    for check in checks:
        if check.variant == "float32" and not check.exact:
            found = check.note or f"the largest difference is {check.max_difference:.3g}"
            raise CheckError(
                f"export {lite.file_name('float32')!r} does not agree with Keras within "
                f"{TOLERANCE:g}: {found}; nothing was written"
            )
        reason = objection(check)
        if reason and not (keep_all and check.max_difference is not None):
            left_out[check.variant] = reason
            (folder / lite.file_name(check.variant)).unlink()
    return LiteReport(tuple(checks), left_out, {})


def timed(report: LiteReport, folder: Path) -> LiteReport:
    """The same with time and memory of each variant in `folder`: while nothing else runs."""
    speeds = {
        check.variant: [
            lite_checks.timed(folder / lite.file_name(check.variant), threads=threads)
            for threads in THREADS
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
