"""Files as programs and people write them: unpacked and decoded by what they hold, not their names.

gzip is recognised by its first bytes; nothing is unpacked beside the user's files. Text may be
UTF-8, UTF-16 or UTF-32, with a byte order mark or (UTF-8 and UTF-16) without one; other text is
taken for Windows-1252 (Latin-1), with a note. Lines end with LF, CR LF or CR. Files that are not
text are refused, and the message says what they are.
"""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import gzip
import io
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from histospace_tf.vocabulary import InputError

_MAGIC = b"\x1f\x8b"
_MARKS = (  # a UTF-32 mark begins with a UTF-16 one
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# First bytes -> what a file is, and what to do.
_KINDS = (
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls); save it as CSV"),
    (b"\x89HDF", "an HDF5 file, such as .h5 or .h5ad"),
    (b"PAR1", "a Parquet table; save it as CSV"),
    (b"ARROW1", "an Arrow table; save it as CSV"),
    (b"%PDF", "a PDF; export the table as CSV"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"{\\rtf", "a Word document (RTF); save it as plain text"),
    (b"BZh", "compressed with bzip2; unpack it, or use gzip"),
    (b"\xfd7zXZ", "compressed with xz; unpack it, or use gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it, or use gzip"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"RDX", "an R workspace (.RData); write the table with write.csv"),
    (b"X\n\0\0", "an R object (.rds); write the table with write.csv"),
    (b"\x93NUMPY", "a NumPy array; save it as CSV"),
    (b"SQLite", "a database; export the table as CSV"),
)
# Beginnings of texts that are no tables, in small letters.
_TEXTS = (
    ("<!doctype html", "a web page; was it downloaded from the address of a page about it?"),
    ("<html", "a web page; was it downloaded from the address of a page about it?"),
    ("<?xml", "XML; save the table as CSV"),
    ("version https://git-lfs", "a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
    ("{", "JSON; a table of lines is needed"),
    ("[", "JSON; a table of lines is needed"),
)
_INVISIBLE = "\u200b\u2060\ufeff\u00ad"
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")


def is_gzipped(path: Path) -> bool:
    """Whether a file is gzipped, whatever its name.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(2) == _MAGIC
    except OSError as error:
        raise InputError(f"file {str(path)!r} cannot be read: {error.strerror}") from None


def read_bytes(path: Path, what: str = "file") -> bytes:
    """Reads a whole file, unpacked where it is gzipped.

    Args:
        path: the file; what: what messages call it ("spot table").
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
    """A path to the unpacked file, for libraries that read from paths.

    That is the file itself or, while in the context, a copy in the system's temporary folder.

    Raises:
        InputError: it cannot be read, or is gzipped and damaged.
    """
    if not is_gzipped(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name.removesuffix(".gz")
        copy.write_bytes(read_bytes(path))
        yield copy


@dataclasses.dataclass(frozen=True)
class TextFile:
    """A text file.

    lines: without line ends; note: what was guessed about the encoding, or "".
    """

    lines: tuple[str, ...]
    note: str = ""


def read_lines(path: Path, what: str) -> TextFile:
    """Reads the lines of a text file, plain or gzipped, without characters of zero width.

    Args:
        path: the file; what: what messages call it ("spot table").
    Raises:
        InputError: the file is missing, empty, truncated, or not text.
    """
    content = read_bytes(path, what)
    kind = _binary_kind(content)
    if kind is not None:
        raise InputError(f"{what} {str(path)!r} is no text but {kind}")
    text, guessed = _decoded(content, path, what)
    beginning = text[:200].lstrip().lower()
    kind = next((kind for start, kind in _TEXTS if beginning.startswith(start)), None)
    if kind is not None:
        raise InputError(f"{what} {str(path)!r} is no table but {kind}")
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\x1a\0")
    for letter in _INVISIBLE:
        text = text.replace(letter, "")
    odd = _CONTROL.search(text)
    if odd is not None:
        raise InputError(
            f"{what} {str(path)!r} is no text: it holds the control character {odd[0]!r}"
        )
    if not text.strip():
        raise InputError(f"{what} {str(path)!r} is empty")
    lines = tuple(text.split("\n"))
    return TextFile(lines, _note(lines) if guessed else "")


def _decoded(content: bytes, path: Path, what: str) -> tuple[str, bool]:
    """The text, and whether its encoding is a guess."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            try:
                return content.decode(encoding), False
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{what} {str(path)!r} cannot be read as text: it begins as "
                    f"{encoding.removesuffix('-sig').upper()} and goes on otherwise at byte "
                    f"{error.start}; is it truncated?"
                ) from None
    if b"\0" in content:
        at_even, at_odd = content[:4000:2].count(0), content[1:4000:2].count(0)
        encoding = "utf-16-le" if at_odd > at_even else "utf-16-be"
        try:
            if min(at_even, at_odd) * 10 < max(at_even, at_odd):
                return content.decode(encoding), False
        except UnicodeDecodeError:
            pass  # no text at all
        raise InputError(
            f"{what} {str(path)!r} is no text (binary zeros in it); a table in plain text works, "
            "as it is or as .gz"
        )
    try:
        return content.decode("utf-8"), False
    except UnicodeDecodeError:
        pass
    try:
        return content.decode("cp1252"), True
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what} {str(path)!r} cannot be read as text: byte {error.start} is neither UTF-8 nor "
            "Windows-1252; save it as UTF-8"
        ) from None


def _binary_kind(content: bytes) -> str | None:
    """What a binary file is, and what to do; None where its beginning is of no known kind."""
    if not content.startswith(b"PK\x03\x04"):
        return next((kind for start, kind in _KINDS if content.startswith(start)), None)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a damaged ZIP archive"
    if any(name.startswith("xl/") for name in names):
        return "an Excel workbook (.xlsx); save it as CSV"
    if "mimetype" in names:
        return "an OpenDocument spreadsheet; save it as CSV"
    return "a ZIP archive; unpack it"


def _note(lines: tuple[str, ...]) -> str:
    """A note on text that was read as Windows-1252, with its first such letter."""
    number, line = next((i, text) for i, text in enumerate(lines, 1) if not text.isascii())
    at = next(i for i, letter in enumerate(line) if not letter.isascii())
    return (
        "it is not UTF-8 and was read as Windows-1252 (Latin-1), so that line "
        f"{number} has {line[max(0, at - 15) : at + 15].strip()!r}; if that is wrong, save it as "
        "UTF-8"
    )
