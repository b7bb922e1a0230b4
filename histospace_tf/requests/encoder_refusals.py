"""What `--encoder` is refused for, before TensorFlow is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from histospace_tf import bundle_file, packaged
from histospace_tf.config import ON_MAPS, Config
from histospace_tf.foreign_encoders import stated
from histospace_tf.vocabulary import InputError


def refuse(encoder: str, config: Config, compare: Sequence[str]) -> None:
    """Refuses an encoder that is not there, and heads that cannot be on one that is brought.

    Args:
        encoder: of a request. config: of its settings. compare: heads to train beside.
    Raises:
        InputError: naming the option.
    """
    if stated.is_stated(encoder):
        brought = stated.stated(encoder).name
    else:
        file = bundle_file.read(packaged.run_folder(encoder))
        bundle_file.refuse_network(file, "`encoder`")
        kept = bundle_file.brought_encoder(file.trained_on)
        if kept is None:
            return
        brought = kept["name"]
    on_maps = [name for name in (*ON_MAPS, "paper") if name in compare]
    if config.regressor.architecture in ON_MAPS:
        raise InputError(
            f"`encoder` {brought} gives vectors, and a head of architecture "
            f"{config.regressor.architecture!r} reads maps; `architecture` context or pooled works"
        )
    if on_maps:
        raise InputError(
            f"`compare` {on_maps[0]} reads an encoder's maps, and `encoder` {brought} gives vectors"
        )
