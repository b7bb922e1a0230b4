"""Errors as messages: exit codes, and what libraries raise on files that they do not expect.

A user's mistake is an InputError, which names file, section or option. Whatever else a library
raises while a user's file is read becomes one where the file is opened (`reading`), with the
original as its cause. Everything left is a fault of this program or of the machine.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import NoReturn

from histospace_tf.vocabulary import CheckError, InputError

# Exit codes of every command.
DONE = 0  # of `check`: sound
USABLE = 1  # of `check`: usable, with warnings
PARTLY = 1  # of `predict` on many slides: some failed
MISTAKE = 2  # the command line or its data cannot be used
FAULT = 3  # reading or writing failed, memory ran out, or the program is at fault
INTERRUPTED = 130
NOBODY_READS = 141  # the program that standard output went to has ended (`| head`)

# How NumPy, HDF5, TensorFlow and the system word that there was no room for an output.
_NO_ROOM = ("No space left", "File too large", "Disk quota exceeded", "requested and", "errno = 28")
_NO_MEMORY = ("OOM when allocating", "bad_alloc", "Cannot allocate memory", "Insufficient memory")


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """A block that reads a user's file: whatever a library raises in it becomes an InputError.

    Args:
        what: the file, and what it is read as: "image 'a.tif'", "section 'C4' ('C4.h5ad')".
    Raises:
        InputError: naming `what` and the cause.
    """
    try:
        yield
    except (InputError, CheckError):
        raise
    except Exception as error:  # of many libraries, on unforeseen files
        refuse_unread(what, error)


def refuse_unread(what: str, error: Exception) -> NoReturn:
    """Raises what `reading` raises for an error.

    Raises:
        InputError: caused by `error`.
        Exception: `error` itself where it is not about the file: no memory, a full disk.
    """
    logging.getLogger(__name__).debug("%s", what, exc_info=error)  # shown with --debug
    if is_out_of_memory(error) or is_no_room(error):
        error.add_note(f"while reading {what}, whose size may be misstated")
        raise error
    if isinstance(error, OSError) and error.errno:
        advice = "Is it there, and may it be read?"
    else:
        advice = (
            "It is damaged, or of a form that is not known here; --debug shows where, and a report "
            "with that trace would help"
        )
    raise InputError(f"{what} cannot be read ({in_words(error)}). {advice}") from error


@contextlib.contextmanager
def working_on(part: str) -> Iterator[None]:
    """A block about one part of the work: an unforeseen error names it.

    Args:
        part: such as "section 'C4'".
    """
    try:
        yield
    except (InputError, CheckError):
        raise
    except Exception as error:
        error.add_note(f"while working on {part}")
        raise


def in_words(error: BaseException) -> str:
    """An error of a library as part of one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def one_line(text: object) -> str:
    """Text without line ends, as a message is printed."""
    return " ".join(str(text).split("\n"))


def is_no_room(error: Exception) -> bool:
    """Whether a disk or a quota was full; each library words it in its own way."""
    return any(words in str(error) for words in _NO_ROOM)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, of Python, NumPy, OpenCV or TensorFlow."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)
