"""Commands that use a trained model or what it predicted, and doctor."""

from __future__ import annotations

import json
import sys

import click

from histospace_tf import faults, packaged
from histospace_tf.commands import options
from histospace_tf.commands.session import begin_work, load_tensorflow, user_errors
from histospace_tf.outputs import say
from histospace_tf.requests import (
    ConvertRequest,
    ExportRequest,
    FeaturesRequest,
    PredictRequest,
    PredictSlidesRequest,
    ViewRequest,
)
from histospace_tf.requests.prediction import prediction_of


@click.command()
@options.asks(PredictSlidesRequest, made=prediction_of)
def predict(request: PredictRequest | PredictSlidesRequest) -> None:
    """Predict expression on a new H&E image or slide, or on many.

    SLIDES are H&E images or whole-slide files, folders of them, patterns in quotes, or a CSV with
    a column slide (and mpp, patient, spots, regions, tissue). One slide goes into one .h5ad. Many
    go into a folder: a .h5ad of each, summary.csv and cohort.h5ad, one row per slide; file options
    then name folders. Exit code 1: some slides failed, and are listed with the reason.

    \b
    Example:
      histospace-tf predict slide.svs --out slide.h5ad --show ERBB2,GNAS --maps maps
      histospace-tf predict slides --model run --jobs 2 --out predicted --maps maps
      histospace-tf predict slides.csv --out predicted --resume
    """
    with user_errors(out=request.out):
        begin_work(request)
        if isinstance(request, PredictRequest):
            from histospace_tf import predicting

            click.echo(predicting.predict(request).summary())
            return
        from histospace_tf import predicting_slides

        result = predicting_slides.predict(request)
        click.echo(result.summary())
        sys.exit(faults.PARTLY if result.failed else faults.DONE)


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
        from histospace_tf.reports import packaged_models

        card = None if name is None else packaged.card(name)
        listed = [model for model in packaged_models.models() if name in (None, model.name)]
        if as_json:
            click.echo(json.dumps([model.to_json() for model in listed], indent=1))
            return
        if card is not None:
            click.echo(card, nl=False)
            return
        click.echo("\n\n".join(model.summary() for model in listed))
        click.echo("\nNext: histospace-tf predict SLIDE --out slide.h5ad")


@click.command()
@options.asks(ConvertRequest)
def convert(request: ConvertRequest) -> None:
    """Write a finished prediction in other formats: predict's, without predicting again.

    PREDICTION is an .h5ad that predict wrote.

    \b
    Example:
      histospace-tf convert slide.h5ad --geojson slide.geojson --table slide.parquet
    """
    with user_errors():
        from histospace_tf.slide_prediction import written_files

        written = written_files.convert(
            request.prediction, request, gene_sets=request.gene_sets, force=request.force
        )
        for path in written:
            click.echo(f"  {path}")


@click.command()
@options.asks(ViewRequest)
def view(request: ViewRequest) -> None:
    """Write a page on which a finished prediction is looked at: any gene over the slide.

    PREDICTION is an .h5ad that predict wrote, or the folder of many: then every slide without a
    page gets one, and index.html lists all with a picture, tissue and warnings. A page is one file
    that loads nothing from elsewhere; predict and convert write it, too (--page).

    \b
    Example:
      histospace-tf view slide.h5ad --open
      histospace-tf view slide.h5ad --out slide.html
      histospace-tf view predictions --open
    """
    with user_errors(out=request.out):
        from histospace_tf import viewing

        click.echo(f"  {viewing.view(request)}")


@click.command()
@options.asks(FeaturesRequest)
def features(request: FeaturesRequest) -> None:
    """Write our encoder's features of slides' tissue tiles, in TRIDENT's form.

    SLIDES is an H&E image, a whole-slide file or a folder of them.

    \b
    Example:
      histospace-tf features slides --out features
      histospace-tf features slide.svs --model run --step-um 100 --out features
    """
    with user_errors(out=request.out):
        begin_work(request)
        from histospace_tf import featurizing

        click.echo(featurizing.featurize(request).summary())


@click.command()
@options.asks(ExportRequest)
def export(request: ExportRequest) -> None:
    """Write a model as SavedModel, TensorFlow Lite and ONNX, and check each.

    RUN is a run folder of fit, or a packaged model's name.

    \b
    Example:
      histospace-tf export run --out exported
    """
    with user_errors(out=request.out):
        begin_work(request)
        from histospace_tf import loaded

        say("Exporting, and checking the files in new processes: about a minute.")
        report = loaded.load(request.run).export(
            request.out, formats=request.formats, force=request.force, keep_all=request.keep_all
        )
        click.echo(report.summary())


@click.command()
def doctor() -> None:
    """Say what is installed here, what runs, and whether the packaged model works.

    Exit code 3: something does not work.

    \b
    Example:
      histospace-tf doctor
    """
    with user_errors():
        load_tensorflow()
        from histospace_tf import doctor as examination

        diagnosis = examination.examine()
        click.echo(diagnosis.text())
        sys.exit(diagnosis.exit_code)
