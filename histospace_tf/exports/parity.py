"""Checks an export against Keras' own numbers: `python -m histospace_tf.exports.parity FOLDER`.

For a fresh process: exports are loaded by TensorFlow alone, without Keras, without this package's
layers and without anything else that the exporting process held.

    FOLDER/saved_model/1/            every signature is checked by two loaders
    FOLDER/onnx/histospace.onnx      checked by one; either may be absent
    FOLDER/expected.npz              of `write_cases`: what each is given, and what Keras gives
    FOLDER/parity.json               written: one `Check` per loader

Loaders: "python" is tf.saved_model.load; "c++" is TensorFlow's C++ loader, the one that TF Serving
uses, through the C API of the installed wheel; "onnxruntime" runs the .onnx. Each runs all rows as
one batch (onnxruntime _ONNX_BATCH of them), then the first row alone. A .tflite is checked by
`histospace_tf.exports.tflite_checks`.

FORMATS is the list of formats that a model is exported to. A format of another name than
"saved_model" and "tflite" has a module of that name beside this one, with

    why_not() -> str | None                           why it cannot be made here, as a message
    write(saved_model, file, bundle, *, signature)    converts one signature of a SavedModel
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from histospace_tf.vocabulary import CheckError

# float32 sums in another order differ by about 1e-6 of their size.
TOLERANCE = 1e-4
SIGNATURE = "serving_default"
_ONNX_BATCH = 16
# predict_raw rounds to grey levels: a sum in another order may move a pixel to the next one, and
# expression by some thousandths (0.007 on 16 tiles of simulated tissue).
ROUNDED = {"predict_raw": 0.05}


class ParityError(CheckError):
    """An export does not give what Keras gives, or could not be run."""


class NotRun(Exception):
    """This platform or installation lacks what a loader needs; the message says what."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One exported format in one loader, beside Keras.

    max_difference, mean_difference: absolute, in the panel's unit; None where it was not run.
    agrees: every value within atol + TOLERANCE * |Keras|; None where it was not run (`note`).
    atol: what it was held to.
    """

    format: str
    loader: str
    max_difference: float | None = None
    mean_difference: float | None = None
    agrees: bool | None = None
    note: str = ""
    atol: float = TOLERANCE


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """What a signature is given, and what it has to give: arrays by name, one row per example.

    signature: of the SavedModel; for another format the format's name.
    Strings are arrays of bytes objects.
    """

    signature: str
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]

    def is_finite(self) -> bool:
        """Whether all numbers of the outputs are."""
        numbers = [values for values in self.outputs.values() if values.dtype != object]
        return all(bool(np.isfinite(values).all()) for values in numbers)


def write_cases(file: Path, cases: Sequence[Case]) -> None:
    """Writes an .npz of one array a name, "signature/inputs/name" and "signature/outputs/name"."""
    arrays = {}
    for case in cases:
        for kind, values in (("inputs", case.inputs), ("outputs", case.outputs)):
            for name, array in values.items():
                # Bytes of a fixed length: objects would be pickled.
                kept = array.astype(np.bytes_) if array.dtype == object else array
                arrays[f"{case.signature}/{kind}/{name}"] = kept
    np.savez(file, **arrays)  # type: ignore[arg-type]


def read_cases(file: Path) -> list[Case]:
    """The cases that `write_cases` wrote.

    Raises:
        ParityError: no such file, or no case in it.
    """
    by_signature: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    try:
        with np.load(file, allow_pickle=False) as kept:
            for key in kept.files:
                signature, kind, name = key.split("/")
                array = kept[key]
                both = by_signature.setdefault(signature, {"inputs": {}, "outputs": {}})
                both[kind][name] = array.astype(object) if array.dtype.kind == "S" else array
        cases = [Case(name, **both) for name, both in by_signature.items()]
    except (OSError, KeyError, ValueError) as error:
        raise ParityError(f"{file} is not readable: {error}") from None
    if not cases:
        raise ParityError(f"{file} is not readable: it has no case")
    return cases


# Inputs by name -> outputs by name; a model loaded: the name of a signature -> that.
_Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
_Model = Callable[[str], _Run]


def run_checks(folder: Path) -> list[Check]:
    """Every check of the exports in `folder`, in the module docstring's layout.

    Raises:
        ParityError: nothing to check, or no expected.npz.
    """
    cases = read_cases(folder / "expected.npz")
    checks = []
    for name, form in FORMATS.items():
        own = [case for case in cases if _format(case) == name]
        path = folder / form.path
        for loader, load in form.loaders.items() if path.exists() else ():
            # A model is loaded once; whatever the loader raises is in each signature's check.
            model = functools.cache(functools.partial(load, path))
            checks += [_checked(loader, model, case) for case in own]
    if not checks:
        paths = " or ".join(form.path.as_posix() for form in FORMATS.values() if form.loaders)
        raise ParityError(f"{folder} holds no {paths} with its cases")
    return checks


def _format(case: Case) -> str:
    return case.signature if case.signature in FORMATS else "saved_model"


def _checked(loader: str, load: Callable[[], _Model], case: Case) -> Check:
    name = _format(case)
    if name == "saved_model" and case.signature != SIGNATURE:
        name = f"{name} {case.signature}"
    try:
        run = load()(case.signature)
        whole = run(case.inputs)
        alone = run({key: values[:1] for key, values in case.inputs.items()})
    except NotRun as reason:
        return Check(name, loader, note=str(reason))
    except Exception as error:  # a loader of another kind raises what it likes; all is reported
        return Check(name, loader, agrees=False, note=f"{type(error).__name__}: {error}")
    ((key, right),) = case.outputs.items()
    if set(whole) != {key}:
        return Check(name, loader, agrees=False, note=f"gives {sorted(whole)}, not {key!r}")
    got = np.concatenate([whole[key], alone[key]])
    right = np.concatenate([right, right[:1]])
    if got.shape != right.shape or got.dtype != right.dtype:
        note = f"gives {got.dtype} {got.shape}, not {right.dtype} {right.shape}"
        return Check(name, loader, agrees=False, note=note)
    if right.dtype == object:
        equal = bool((got == right).all())
        note = "" if equal else "its gene list is not the panel's"
        return Check(name, loader, float(not equal), float((got != right).mean()), equal, note)
    atol = max(TOLERANCE, ROUNDED.get(case.signature, 0.0))
    gap = np.abs(got.astype(np.float64) - right)
    largest, mean = float(gap.max()), float(gap.mean())
    if not math.isfinite(largest):
        return Check(name, loader, agrees=False, note="gives numbers that are not finite")
    agrees = bool((gap <= atol + TOLERANCE * np.abs(right)).all())
    return Check(name, loader, largest, mean, agrees, atol=atol)


def _python_model(folder: Path) -> _Model:
    import tensorflow as tf

    model = tf.saved_model.load(str(folder))  # kept: its functions do not hold its variables

    def signature(name: str) -> _Run:
        def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            fed = {key: tf.constant(values) for key, values in inputs.items()}
            return {key: out.numpy() for key, out in model.signatures[name](**fed).items()}

        return run

    return signature


def _cpp_model(folder: Path) -> _Model:
    from histospace_tf.exports.cpp_loader import CppModel, NotHere

    try:
        model = CppModel(folder)
    except NotHere as reason:
        raise NotRun(str(reason)) from None
    return lambda name: functools.partial(model.run, name)


def _onnx_model(file: Path) -> _Model:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        ((key, rows),) = inputs.items()
        parts = [
            session.run(None, {key: rows[start : start + _ONNX_BATCH]})
            for start in range(0, len(rows), _ONNX_BATCH)
        ]
        return {name: np.concatenate([part[n] for part in parts]) for n, name in enumerate(names)}

    return lambda name: run


@dataclasses.dataclass(frozen=True)
class Format:
    """A format that a model is exported to.

    folder: below the export's; it is replaced as a whole.
    file: in that folder, what loaders load; None: the folder.
    loaders: by name; empty where the numbers are not Keras' own and are judged elsewhere.
    needs_keras: of the loaders; the process that checks does without it otherwise.
    """

    folder: Path
    file: str | None = None
    loaders: Mapping[str, Callable[[Path], _Model]] = dataclasses.field(default_factory=dict)
    needs_keras: bool = False

    @property
    def path(self) -> Path:
        """What loaders load, below the export's folder."""
        return self.folder if self.file is None else self.folder / self.file


FORMATS = {
    "saved_model": Format(
        Path("saved_model", "1"), loaders={"python": _python_model, "c++": _cpp_model}
    ),
    "tflite": Format(Path("tflite")),
    "onnx": Format(Path("onnx"), "histospace.onnx", {"onnxruntime": _onnx_model}),
}


def main(folder: Path) -> int:
    """Runs the checks, writes parity.json and prints a line for each check; 0 if none fails."""
    checks = run_checks(folder)
    text = json.dumps([dataclasses.asdict(check) for check in checks], indent=1)
    (folder / "parity.json").write_text(text, encoding="utf-8")
    print(table(checks))
    return int(any(check.agrees is False for check in checks))


def table(checks: list[Check] | tuple[Check, ...]) -> str:
    """Checks as lines of text."""
    head = ("format", "loader", "largest difference", "mean", "allowed", "agrees")
    lines = ["{:<28} {:<11} {:>18} {:>9} {:>8}  {}".format(*head)]
    for c in checks:
        gaps = ["" if d is None else f"{d:.1e}" for d in (c.max_difference, c.mean_difference)]
        verdict = {True: "yes", False: "NO", None: "-"}[c.agrees]
        note = f" ({c.note})" if c.note else ""
        row = (c.format, c.loader, *gaps, f"{c.atol:g}", f"{verdict}{note}")
        lines.append("{:<28} {:<11} {:>18} {:>9} {:>8}  {}".format(*row))
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m histospace_tf.exports.parity FOLDER")
    try:
        sys.exit(main(Path(sys.argv[1])))
    except ParityError as problem:
        sys.exit(str(problem))
