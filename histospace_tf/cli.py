"""The command line: flags -> one call. TensorFlow is imported only inside commands that need it."""

from __future__ import annotations

import signal

import click

import histospace_tf
from histospace_tf import provenance
from histospace_tf.commands import data, session, train, use


class Commands(click.Group):
    """The commands; --debug may stand before or behind any of them, and no error has a trace."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        debug = ["--debug"] if "--debug" in args[:end] else []
        rest = [argument for argument in args[:end] if argument != "--debug"]
        return super().parse_args(ctx, [*debug, *rest, *args[end:]])

    def invoke(self, ctx: click.Context) -> object:
        with session.user_errors():
            return super().invoke(ctx)


def print_version(context: click.Context, parameter: click.Parameter, is_asked: bool) -> None:
    """Prints versions, without importing what they are of."""
    if is_asked:
        versions = provenance.versions()
        others = ", ".join(f"{name} {versions[name]}" for name in ("tensorflow", "keras", "python"))
        click.echo(f"histospace-tf {histospace_tf.__version__} ({others})")
        context.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Print the versions of this program, TensorFlow and Keras.",
)
@click.option(
    "--debug",
    is_flag=True,
    envvar=session.DEBUG,
    help="Print the trace of an error, and warnings of libraries.",
)
def main(debug: bool) -> None:
    """Spatial gene expression predicted from ordinary H&E histology images.

    Exit code 0: done; 1: of check, usable with warnings, of predict, some slides failed; 2: a
    mistake in the command line or its data; 3: reading or writing failed, memory ran out, or the
    program is at fault; 130: interrupted.
    """
    session.begin(debug=debug)
    # A scheduler that stops a job, and a terminal that closes, end it like Ctrl-C: drafts go, and
    # what --resume needs stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.default_int_handler)  # not under nohup


for command in (
    train.fit,
    train.evaluate,
    train.report,
    use.predict,
    use.models,
    use.convert,
    use.view,
    use.features,
    use.export,
    data.check,
    data.tissue,
    data.normalize,
    data.simulate,
    use.doctor,
):
    main.add_command(command)
