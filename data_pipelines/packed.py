"""Files that may be gzipped, whatever their names say; nothing is unpacked beside them."""

from __future__ import annotations

import contextlib
import gzip
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from histospace_tf.vocabulary import InputError

_MAGIC = b"\x1f\x8b"


def is_packed(path: Path) -> bool:
    """Whether a file's content is gzip's.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(2) == _MAGIC
    except OSError as error:
        raise InputError(f"file {str(path)!r} cannot be read: {error.strerror}") from None


def content(path: Path, what: str = "file") -> bytes:
    """All of a file, unpacked where it is gzipped.

    Args:
        path: the file; what: what it is to the reader ("spot table"), for messages.
    Raises:
        InputError: it does not exist, cannot be read, or is gzipped and damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{what} {str(path)!r} does not exist") from None
    except OSError as error:
        raise InputError(f"{what} {str(path)!r} cannot be read: {error.strerror}") from None
    if not data.startswith(_MAGIC):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{what} {str(path)!r} is gzipped and truncated or damaged ({error}); copy or download "
            "it again"
        ) from None


@contextlib.contextmanager
def plain_file(path: Path) -> Iterator[Path]:
    """The file itself, or while in the context an unpacked copy of it in the system's temporary
    folder, for what reads from paths alone.

    Raises:
        InputError: it cannot be read, or is gzipped and damaged.
    """
    if not is_packed(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name.removesuffix(".gz")
        copy.write_bytes(content(path))
        yield copy
