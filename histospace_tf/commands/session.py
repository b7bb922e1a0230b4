"""What every command runs in: errors end in one line, and TensorFlow loads quietly."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click

import histospace_tf
from histospace_tf import api, faults, outputs, requests
from histospace_tf.outputs import say
from histospace_tf.request_options import Options
from histospace_tf.vocabulary import CheckError, InputError

DEBUG = "HISTOSPACE_DEBUG"  # the environment variable of --debug


def begin(*, debug: bool) -> None:
    """Prepares this process for a command: what it prints, and what libraries may print.

    Warnings of libraries about each other are for their developers; `debug` and Python's own -W and
    PYTHONWARNINGS show them.
    """
    for stream in (sys.stdout, sys.stderr):  # a file name need not be Unicode, nor a terminal
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if debug:
        os.environ[DEBUG] = "1"
        logging.basicConfig()
        logging.getLogger(faults.__name__).setLevel(logging.DEBUG)
        return
    os.environ.pop(DEBUG, None)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    if not logging.getLogger().handlers:  # Python prints what no handler takes
        logging.getLogger().addHandler(logging.NullHandler())


@contextlib.contextmanager
def user_errors(*, out: Path | None = None) -> Iterator[None]:
    """Ends every error with one line and an exit code of `faults`; --debug shows the trace above.

    Arguments between backquotes are told as flags, in errors and by `say`.

    Args:
        out: what the command writes, to be named where the system does not name a file.
    """
    before = _identity(out)
    wording = outputs.WORDING.set(requests.with_flags)
    try:
        yield
    except (click.ClickException, click.Abort, click.exceptions.Exit):
        raise
    except InputError as error:
        # A disk or network that fails is no mistake, though it is told as one about the file.
        code = faults.FAULT if _is_of_the_system(error.__cause__) else faults.MISTAKE
        _end(str(error), code)
    except CheckError as error:
        click.echo(f"Error: {error}", err=True)  # of several lines, where a process ended badly
        sys.exit(faults.FAULT)
    except KeyboardInterrupt:
        click.echo(f"Interrupted: {_left_behind(out, before)}.", err=True)
        sys.exit(faults.INTERRUPTED)
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # Python flushes once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(faults.NOBODY_READS)
    except Exception as error:
        _end(_fault(error, out), faults.FAULT)
    finally:
        outputs.WORDING.reset(wording)


def _end(message: str, code: int) -> NoReturn:
    if os.environ.get(DEBUG):
        traceback.print_exc()
    message = requests.with_flags(message)
    click.echo(f"Error: {faults.one_line(message)}", err=True)
    sys.exit(code)


def _is_of_the_system(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in (
        *(errno.EIO, errno.EACCES, errno.EPERM, errno.ESTALE, errno.ETIMEDOUT),
        *(errno.EMFILE, errno.ENFILE, errno.ENOLCK, errno.EREMOTEIO),
    )


def _fault(error: Exception, out: Path | None) -> str:
    """What is said of an error that is nobody's mistake."""
    named = getattr(error, "filename", None) or out
    where = f" {str(named)!r}" if named else ""
    notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
    if faults.is_no_room(error):
        return (
            f"cannot read or write{where}: the disk is full, or a limit on file size or quota is "
            "reached"
        )
    if faults.is_out_of_memory(error):
        return (
            f"there is not enough memory{notes} ({faults.in_words(error)}). End other programs, "
            "take a machine with more, or give less at a time: fewer sections, larger bins, a "
            "smaller --batch-size"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"cannot read or write{where}: {error.strerror}{notes}"
    context = click.get_current_context(silent=True)
    command = context.info_name if context is not None and context.parent else "histospace-tf"
    return (
        f"{command} failed{notes}: {faults.in_words(error)} ({_place(error)}). This is a fault of "
        f"histospace-tf {histospace_tf.__version__}: please report it, with what the same command "
        "prints with --debug"
    )


def _place(error: Exception) -> str:
    """File and line of this package where an error came up."""
    top = Path(histospace_tf.__file__).parent
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(top)] or frames
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}"


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


def begin_work(request: Options) -> None:
    """Refuses a request that could not be met, and loads TensorFlow for one that could.

    Raises:
        InputError: as `refusals.refuse`.
    """
    from histospace_tf.requests import refusals

    refusals.refuse(request)
    load_tensorflow()


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
