"""The command line: flags -> one call. TensorFlow is imported only inside commands that need it."""

from __future__ import annotations

import signal

import click

import histospace_tf
from histospace_tf.commands import data, train, use


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(histospace_tf.__version__, prog_name="histospace-tf")
def main() -> None:
    """Spatial gene expression predicted from ordinary H&E histology images."""
    # A scheduler that stops a job ends it like Ctrl-C: drafts go, and what --resume needs stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


for command in (
    train.fit,
    train.evaluate,
    train.report,
    use.predict,
    use.models,
    use.convert,
    use.export,
    data.check,
    data.normalize,
    data.simulate,
):
    main.add_command(command)
