"""Commands that use a trained model: predict, models, convert, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from histospace_tf import packaged
from histospace_tf.commands import options
from histospace_tf.commands.options import PATH
from histospace_tf.commands.session import load_tensorflow, user_errors
from histospace_tf.exports.parity import FORMATS
from histospace_tf.outputs import say


@click.command()
@click.argument("slide", type=PATH)
@click.option(
    "--model",
    help="Run folder of fit, or a packaged model's name. [default: breast-her2st, packaged]",
)
@click.option("--out", type=PATH, required=True, help=".h5ad to write.")
@click.option(
    "--spots",
    type=PATH,
    help="Table with columns pixel_x, pixel_y, or QuPath's centroids; Space Ranger's "
    "tissue_positions; or an .h5ad's spots. [default: a grid]",
)
@click.option("--mpp", type=float, help="Microns per pixel, where the image does not say.")
@click.option(
    "--step-um", type=float, help="Distance of the grid's tiles in microns. [default: 100]"
)
@options.file_options
@click.option("--fast", is_flag=True, help="No averaging over flips and rotations of a tile.")
@click.option(
    "--server", help="HOST:PORT[/NAME[/versions/N]] of TF Serving with the model. [default: none]"
)
@click.option("--resume", is_flag=True, help="Go on from an interrupted prediction.")
@click.option("--force", is_flag=True, help="Replace finished and interrupted outputs.")
def predict(
    slide: Path,
    model: str | None,
    out: Path,
    spots: Path | None,
    mpp: float | None,
    step_um: float | None,
    fast: bool,
    server: str | None,
    resume: bool,
    force: bool,
    **chosen: Any,
) -> None:
    """Predict expression on a new H&E image or slide.

    \b
    Example:
      histospace-tf predict slide.svs --out slide.h5ad --show ERBB2,GNAS --maps maps
      histospace-tf predict slide.svs --model run --out slide.h5ad
    """
    with user_errors(out=out):
        from histospace_tf import first_checks

        run = packaged.run_folder(model)
        keywords: dict[str, Any] = {
            "spots": spots,
            "mpp": mpp,
            "step_um": step_um,
            "files": options.files(chosen),
            "fast": fast,
            "server": server,
            "resume": resume,
            "force": force,
        }
        first_checks.predict(slide, run, out, **keywords)
        load_tensorflow()
        from histospace_tf import predicting

        result = predicting.predict(slide, run, out, **keywords)
        click.echo(result.summary())


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def models(name: str | None, as_json: bool) -> None:
    """List the trained models that come with the package, or print one's model card.

    \b
    Example:
      histospace-tf models
      histospace-tf models breast-her2st
    """
    with user_errors():
        card = None if name is None else packaged.card(name)
        found = [model for model in packaged.models() if name in (None, model.name)]
        if as_json:
            click.echo(json.dumps([model.to_json() for model in found], indent=1))
            return
        if card is not None:
            click.echo(card, nl=False)
            return
        click.echo("\n\n".join(model.summary() for model in found))
        click.echo("\nNext: histospace-tf predict SLIDE --out slide.h5ad")


@click.command()
@click.argument("prediction", type=PATH)
@options.file_options
@click.option("--force", is_flag=True, help="Replace finished outputs.")
def convert(prediction: Path, force: bool, **chosen: Any) -> None:
    """Write a finished prediction in other formats: predict's, without predicting again.

    PREDICTION is an .h5ad that predict wrote.

    \b
    Example:
      histospace-tf convert slide.h5ad --geojson slide.geojson --table slide.parquet
    """
    with user_errors():
        from histospace_tf.slide_prediction import written_files

        for path in written_files.convert(prediction, options.files(chosen), force=force):
            click.echo(f"  {path}")


@click.command()
@click.argument("run")
@click.option("--out", type=PATH, required=True, help="Folder for a folder a format.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(list(FORMATS)),
    multiple=True,
    help="What to write. Repeatable. [default: all; onnx needs the extra onnx]",
)
@click.option(
    "--keep-all", is_flag=True, help="Write .tflite variants that lose over 0.01 of mean r, too."
)
@click.option("--force", is_flag=True, help="Replace finished outputs.")
def export(run: str, out: Path, formats: tuple[str, ...], keep_all: bool, force: bool) -> None:
    """Write a model as SavedModel, TensorFlow Lite and ONNX, and check each.

    RUN is a run folder of fit, or a packaged model's name.

    \b
    Example:
      histospace-tf export run --out exported
    """
    with user_errors(out=out):
        from histospace_tf import first_checks

        folder, formats = packaged.run_folder(run), formats or tuple(FORMATS)
        first_checks.export(folder, out, formats=formats, force=force)
        load_tensorflow()
        from histospace_tf import loaded

        say("Exporting, and checking the files in new processes: about a minute.")
        report = loaded.load(folder).export(out, formats=formats, force=force, keep_all=keep_all)
        click.echo(report.summary())
