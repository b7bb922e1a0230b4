"""What the one input and the outputs of an encoder say of the tiles that it takes.

Raises:
    InputError: each function, where they cannot be tiles, or must be stated and are not. `what` is
        the encoder, for messages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from histospace_tf.foreign_encoders.stated import StatedEncoder
from histospace_tf.vocabulary import InputError, named


@dataclasses.dataclass(frozen=True)
class Entrance:
    """px: side of a tile; channels_first: (n, 3, px, px); is_bytes: 8-bit levels."""

    px: int
    channels_first: bool
    is_bytes: bool


def refuse_several(inputs: Sequence[str], what: str) -> None:
    """Refuses inputs that are not one."""
    if len(inputs) != 1:
        raise InputError(
            f"{what} takes {len(inputs)} inputs ({named(inputs) or 'none'}); one, the tile, is "
            "needed"
        )


def chosen_output(names: Sequence[str], stated: StatedEncoder, what: str) -> str:
    """The output that is meant: the only one, or the one that is named."""
    if stated.output is None and len(names) == 1:
        return names[0]
    if stated.output is None or stated.output not in names:
        wanted = "none is named" if stated.output is None else f"there is no {stated.output!r}"
        raise InputError(f"{what}: of its outputs {named(names)}, {wanted}; give output=NAME")
    return stated.output


def read_entrance(
    shape: Sequence[int | None] | None, dtype: str, stated: StatedEncoder, what: str
) -> Entrance:
    """What an encoder's input says of the tiles that it takes.

    Args:
        shape: of the input, its first axis the batch; None: of unknown rank.
        dtype: of the input, such as "float32".
    """
    if shape is None or len(shape) != 4:
        raise InputError(
            f"{what} takes arrays of shape {shape_words(shape)}; tiles (n, px, px, 3) or "
            "(n, 3, px, px) are needed"
        )
    batch, *sizes = shape
    if batch is not None:
        raise InputError(
            f"{what} takes {batch} {'tile' if batch == 1 else 'tiles'} at a time, no more and no "
            "fewer; export it with a free first axis (torch.onnx.export: dynamic_axes)"
        )
    if (sizes[2] == 3) == (sizes[0] == 3):
        raise InputError(
            f"{what} takes arrays of shape {shape_words(shape)}, which do not tell channels from "
            "places; one axis of 3, the second or the last, is needed"
        )
    channels_first = sizes[0] == 3
    height, width = sizes[1:] if channels_first else sizes[:2]
    sides = {side for side in (height, width, stated.px) if side is not None}
    if len(sides) > 1:
        said = "" if stated.px is None else f", and px={stated.px} was given"
        raise InputError(
            f"{what} takes arrays of shape {shape_words(shape)}{said}; tiles are square"
        )
    if not sides:
        raise InputError(
            f"{what} takes tiles of any size and does not say of which it was trained; give px=N"
        )
    return Entrance(sides.pop(), channels_first, dtype == "uint8")


def shape_words(shape: Sequence[int | None] | None) -> str:
    """A shape for a message, free axes as n."""
    if shape is None:
        return "(unknown)"
    return f"({', '.join('n' if size is None else str(size) for size in shape)})"
