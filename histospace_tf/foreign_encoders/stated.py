"""An encoder that a user brings, as one text: SOURCE,setting=value,...

    uni.onnx,px=224,mpp=0.5,pixels=imagenet
    EfficientNetB0,px=224,mpp=0.5

SOURCE is the name of a Keras application, a .keras file, a folder of a SavedModel, or an .onnx
file. What a file says, such as a fixed size, need not be stated; what it does not say is asked for.
No TensorFlow here: a text is read, and refused, before that is imported.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from histospace_tf.vocabulary import InputError

Kind = Literal["application", "keras", "saved_model", "onnx"]
KINDS: dict[Kind, str] = {
    "application": "Keras application",
    "keras": ".keras file",
    "saved_model": "SavedModel",
    "onnx": ".onnx file",
}
FORM = "ENCODER,px=N,mpp=UM,pixels=FORM"
# What an encoder wants of a pixel p in [0, 1]: (mean, deviation), as (p - mean) / deviation.
PIXELS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # of torchvision and timm
    "0..1": ((0.0,) * 3, (1.0,) * 3),
    "-1..1": ((0.5,) * 3, (0.5,) * 3),
    "0..255": ((0.0,) * 3, (1 / 255,) * 3),
}
COLOURS = ("raw", "normalised")
_SETTINGS = {
    "px": "side of a tile in pixels",
    "mpp": "microns per pixel, or image for each image's own",
    "pixels": f"{', '.join(PIXELS)}, or R/G/B:R/G/B, mean and deviation of pixels in 0..1",
    "colours": "raw (the default) or normalised",
    "tokens": "class, mean, class+mean; mean:N and class+mean:N leave the first N out of the mean",
    "output": "name of one of several outputs",
    "signature": "of a SavedModel",
    "weights": "of a Keras application: imagenet (the default), a file, or random",
    "name": "in tables, in place of the source's own",
}


@dataclasses.dataclass(frozen=True)
class StatedEncoder:
    """What a text says of an encoder; None: nothing.

    source: name of a Keras application, or a path.
    px: side of the tiles that it takes.
    mpp: their microns per pixel; None: each image's own.
    mean, deviation: of pixels in [0, 1], which it takes as (p - mean) / deviation.
    colours: "raw", as the slide has them, or "normalised" to the run's stain reference.
    tokens: which of a transformer's tokens are its features: (with the class token, number of the
        first token in the mean; None: no mean).
    output, signature: where it has several. weights: of a Keras application.
    """

    source: str
    kind: Kind
    name: str
    px: int | None = None
    mpp: float | None = None
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
    colours: str = "raw"
    tokens: tuple[bool, int | None] | None = None
    output: str | None = None
    signature: str | None = None
    weights: str = "imagenet"

    @property
    def path(self) -> Path | None:
        """Its file or folder; None for a Keras application."""
        return None if self.kind == "application" else Path(self.source)


def kind_of(source: str) -> Kind | None:
    """What a source is, by its name and what lies there; None: no encoder of these."""
    path = Path(source)
    if path.suffix.lower() == ".onnx":
        return "onnx"
    if path.suffix.lower() == ".keras":
        return "keras"
    if (path / "saved_model.pb").is_file():
        return "saved_model"
    is_name = re.fullmatch(r"[A-Z][A-Za-z0-9]+", source) is not None
    return "application" if is_name and not path.exists() else None


def is_stated(text: str) -> bool:
    """Whether a text is one of an encoder that is brought, and no run's folder or model's name."""
    return kind_of(text.strip()) is not None or ("," in text and not Path(text).exists())


def from_record(values: Mapping[str, Any]) -> StatedEncoder:
    """What `dataclasses.asdict` and JSON made of one; other entries are left aside."""
    kept = {field.name: values[field.name] for field in dataclasses.fields(StatedEncoder)}
    make: Any = StatedEncoder
    return make(**{name: tuple(v) if isinstance(v, list) else v for name, v in kept.items()})


def stated(text: str) -> StatedEncoder:
    """Reads the text of an encoder.

    Raises:
        InputError: a source that does not exist or is none of KINDS, an unknown setting or value,
            no `mpp`, or what a Keras application alone has or lacks.
    """
    source, *parts = re.split(r",(?=\s*[a-z]+=)", text)
    source = source.strip()
    given: dict[str, str] = {}
    for part in parts:
        setting, _, value = (word.strip() for word in part.partition("="))
        if setting not in _SETTINGS:
            near = difflib.get_close_matches(setting, _SETTINGS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(_SETTINGS)}"
            raise InputError(f"encoder {source!r} has no setting {setting!r}; {hint}")
        if setting in given:
            raise InputError(f"encoder {source!r}: {setting} is given twice")
        given[setting] = value
    kind = kind_of(source)
    if kind is None:
        raise InputError(
            f"encoder {source!r}: no file or folder of that name holds one; a Keras application's "
            "name (EfficientNetB0), a .keras file, a SavedModel's folder or an .onnx file works"
        )
    if kind != "application" and not Path(source).exists():
        raise InputError(f"encoder {source!r} does not exist")
    _refuse_missing(source, kind, given)
    mean, deviation = _pixels(source, given.get("pixels"))
    colours = given.get("colours", "raw")
    if colours not in COLOURS:
        raise _wrong(source, "colours", colours)
    weights = given.get("weights", "imagenet")
    if weights not in ("imagenet", "random") and not Path(weights).is_file():
        raise InputError(
            f"encoder {source!r}: weights={weights} is no file; imagenet, random, or a file of "
            "Keras weights works"
        )
    name = given.get("name", source if kind == "application" else Path(source).resolve().name)
    if not name or re.search(r"[/\n]", name):
        raise InputError(f"encoder {source!r}: name={name}; a name without '/' works")
    return StatedEncoder(
        source=source,
        kind=kind,
        name=name,
        px=_px(source, given.get("px")),
        mpp=_mpp(source, given["mpp"]),
        mean=mean,
        deviation=deviation,
        colours=colours,
        tokens=_tokens(source, given.get("tokens")),
        output=given.get("output"),
        signature=given.get("signature"),
        weights=weights,
    )


def _refuse_missing(source: str, kind: Kind, given: dict[str, str]) -> None:
    """Refuses a text that lacks what no encoder says of itself, or has what its kind has not."""
    needed = ("mpp", "px") if kind == "application" else ("mpp",)
    missing = [name for name in needed if name not in given]
    if missing:
        words = "; ".join(f"{name}: {_SETTINGS[name]}" for name in missing)
        example = ",".join([source, *(f"{n}={'0.5' if n == 'mpp' else '224'}" for n in missing)])
        raise InputError(
            f"encoder {source!r} does not say {' and '.join(missing)} of its tiles; state it, such "
            f"as {example} ({words})"
        )
    foreign = ["pixels", "output"] if kind == "application" else ["weights"]
    if kind != "saved_model":
        foreign.append("signature")
    for name in foreign:
        if name in given:
            raise InputError(f"encoder {source!r}: a {KINDS[kind]} takes no {name}")


def _px(source: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or not 8 <= int(text) <= 4096:
        raise InputError(f"encoder {source!r}: px={text}; a whole number from 8 to 4096 works")
    return int(text)


def _mpp(source: str, text: str) -> float | None:
    if text == "image":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.05 <= value <= 50:
        raise InputError(f"encoder {source!r}: mpp={text}; 0.05 to 50 um/px, or image, works")
    return value


def _pixels(
    source: str, text: str | None
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    if text is None:
        return None, None
    if text in PIXELS:
        return PIXELS[text]
    try:
        mean, deviation = (tuple(map(float, part.split("/"))) for part in text.split(":"))
    except ValueError:
        raise _wrong(source, "pixels", text) from None
    is_whole = len(mean) == len(deviation) == 3 and all(map(math.isfinite, (*mean, *deviation)))
    if not is_whole or min(deviation) <= 0:
        raise _wrong(source, "pixels", text)
    return mean, deviation


def _tokens(source: str, text: str | None) -> tuple[bool, int | None] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(class)|(class\+)?mean(?::(\d+))?", text)
    if match is None:
        raise _wrong(source, "tokens", text)
    if match[1]:
        return True, None
    return match[2] is not None, int(match[3] or (1 if match[2] else 0))


def _wrong(source: str, setting: str, value: str) -> InputError:
    return InputError(f"encoder {source!r}: {setting}={value}; {_SETTINGS[setting]} works")
