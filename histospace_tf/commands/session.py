"""What every command runs in: mistakes end in one line, and TensorFlow loads quietly."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from histospace_tf import api, outputs
from histospace_tf.outputs import say
from histospace_tf.vocabulary import CheckError, InputError

# How NumPy, HDF5, TensorFlow and the system word that there was no room for an output.
NO_ROOM = ("No space left", "File too large", "Disk quota exceeded", "requested and", "errno = 28")


@contextlib.contextmanager
def user_errors(*, out: Path | None = None, code: int = 1) -> Iterator[None]:
    """Ends a user's mistake, a full disk or an interrupt with one line and no traceback.

    Args:
        out: what the command writes, to be named where the system does not name a file.
        code: exit code of a user's mistake.
    """
    before = _identity(out)
    try:
        yield
    except (InputError, CheckError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(code)
    except KeyboardInterrupt:
        click.echo(f"Interrupted: {_left_behind(out, before)}.", err=True)
        sys.exit(130)
    except Exception as error:  # libraries word a full disk each in their own way
        named = getattr(error, "filename", None) or out
        where = f" {str(named)!r}" if named else ""
        if any(words in str(error) for words in NO_ROOM):
            reason = "the disk is full, or a limit on file size or quota is reached"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        else:
            raise
        click.echo(f"Error: cannot read or write{where}: {reason}", err=True)
        sys.exit(1)


def _identity(out: Path | None) -> tuple[int, int] | None:
    """What tells a file from one that is put in its place; None where there is none."""
    if out is None or not out.is_file():
        return None
    return out.stat().st_ino, out.stat().st_mtime_ns


def _left_behind(out: Path | None, before: tuple[int, int] | None) -> str:
    """What stands there after an interrupt, in words."""
    if out is None:
        return "finished files stay, and no half one"
    if _identity(out) != before:
        return (
            f"{out} is finished, what was to stand beside it perhaps not; "
            f"histospace-tf convert {out} writes that"
        )
    partial = outputs.partial(out)
    more = f"; --resume goes on from {partial}" if partial.is_dir() else ""
    return f"no finished output was written{more}"


def load_tensorflow() -> None:
    """Imports TensorFlow with settings that it reads then; the user's own values win.

    Its native code writes to the standard error stream's descriptor while it loads (which
    processor, which drivers), whatever the log level; that is kept back unless loading fails.
    """
    api.prepare_tensorflow()
    say("Loading TensorFlow.")
    kept, own = os.dup(2), tempfile.TemporaryFile()  # noqa: SIM115 (closed below)
    os.dup2(own.fileno(), 2)
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()
        tf.get_logger().setLevel("ERROR")
    except BaseException:
        own.seek(0)
        os.write(kept, own.read())
        raise
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        own.close()
