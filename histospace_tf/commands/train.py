"""Commands that train and score: fit, evaluate, report."""

from __future__ import annotations

from pathlib import Path

import click

from histospace_tf.commands import options
from histospace_tf.commands.options import PATH
from histospace_tf.commands.session import begin_work, user_errors
from histospace_tf.faults import reading
from histospace_tf.requests import BulkRequest, EvaluateRequest, FitRequest, ScoreRequest
from histospace_tf.requests.bulk import fitting_of
from histospace_tf.requests.training import evaluation_of


@click.command()
@options.asks(FitRequest, made=fitting_of)
def fit(request: FitRequest | BulkRequest) -> None:
    """Train on paired sections, score the held-out ones, export the model.

    DATA is a folder of H&E images, spots and counts, or a .h5ad with its image. Without it, tissue
    is simulated. With --bulk, DATA is a folder of slides whose bulk expression
    is known, and a network is trained on them as a whole.

    \b
    Example:
      histospace-tf fit her2st --hold-out C4 --pretrain breast_images --out run
      histospace-tf fit her2st --hold-out C4 --architecture st_net --out run
      histospace-tf fit slides --bulk bulk.csv --architecture he2rna --out run
    """
    with user_errors(out=request.out):
        begin_work(request)
        if isinstance(request, BulkRequest):
            from histospace_tf import bulk_fitting

            click.echo(bulk_fitting.fit(request).summary())
        else:
            from histospace_tf import fitting

            click.echo(fitting.fit(request).summary())


@click.command()
@options.asks(EvaluateRequest, made=evaluation_of)
def evaluate(request: EvaluateRequest | ScoreRequest) -> None:
    """Hold out every patient or section in turn, and score them beside all baselines.

    DATA is a folder as for fit. With --model, a finished run is scored on it instead. Five
    sections of 200 spots take 10 to 30 minutes on 2 cores; --resume goes on after an interrupt.

    \b
    Example:
      histospace-tf evaluate her2st --split patient --pretrain breast_images --out evaluation
      histospace-tf evaluate other_data --model run --out external
    """
    with user_errors(out=request.out):
        begin_work(request)
        if isinstance(request, ScoreRequest):
            from histospace_tf import scoring

            click.echo(scoring.score(request).summary())
        else:
            from histospace_tf import evaluation

            click.echo(evaluation.evaluate(request).summary())


@click.command()
@click.argument("run", type=PATH)
@click.option("--genes", help="Genes to map, separated by commas. [default: known and best ones]")
def report(run: Path, genes: str | None) -> None:
    """Render report.html again, from the folder of a run or an evaluation.

    \b
    Example:
      histospace-tf report evaluation --genes ERBB2,GNAS
    """
    with user_errors(out=run):
        from histospace_tf import reporting

        shown = [gene.strip() for gene in (genes or "").split(",") if gene.strip()]
        with reading(f"run {str(run)!r}"):
            page = reporting.render(run, genes=shown or None)
        click.echo(f"  {page}")
