"""Commands that train and score: fit, evaluate, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from histospace_tf import packaged, run_settings
from histospace_tf.commands import options
from histospace_tf.commands.options import PATH
from histospace_tf.commands.session import load_tensorflow, user_errors
from histospace_tf.faults import reading
from histospace_tf.vocabulary import InputError


@click.command()
@click.argument("data", type=PATH, required=False)
@click.option("--out", type=PATH, help="Run folder to write. [default: runs/<date-time>]")
@click.option(
    "--hold-out",
    multiple=True,
    help="Patient or section to score on. Repeatable. [default: the patient with fewest spots; "
    "of one patient the section; of one section a block of it]",
)
@click.option("--no-hold-out", is_flag=True, help="Train on everything, score nothing.")
@click.option(
    "--evaluation",
    "evaluations",
    type=PATH,
    multiple=True,
    help="With --no-hold-out: folder of evaluate on the same DATA, whose scores and trust the "
    "model carries. Repeatable.",
)
@options.training_options
def fit(
    data: Path | None,
    out: Path | None,
    hold_out: tuple[str, ...],
    no_hold_out: bool,
    evaluations: tuple[Path, ...],
    resume: bool,
    **chosen: Any,
) -> None:
    """Train on paired sections, score the held-out ones, export the model.

    DATA is a folder of H&E images, spots and counts, or a .h5ad with its image. Without it, tissue
    is simulated.

    \b
    Example:
      histospace-tf fit her2st --hold-out C4 --pretrain breast_images --out run
    """
    if out is None and not resume:
        out = run_settings.new_run()
    with user_errors(out=out):
        from histospace_tf import first_checks

        settings = options.settings(chosen, is_simulated=data is None)
        if out is None:
            raise InputError("--resume needs --out RUN, the run to go on with")
        keywords: dict[str, Any] = {
            "hold_out": hold_out,
            "no_hold_out": no_hold_out,
            "evaluations": evaluations,
            "resume": resume,
            **chosen,
        }
        first_checks.fit(settings, data, out, **keywords)
        load_tensorflow()
        from histospace_tf import fitting

        result = fitting.fit(settings, data, out, **keywords)
        click.echo(result.summary())


@click.command()
@click.argument("data", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder to write.")
@click.option(
    "--split",
    type=click.Choice(["patient", "section"]),
    help="What is held out in turn. [default: patient, where there are two or more]",
)
@click.option(
    "--model",
    help="Score this finished run, or this packaged model, on DATA; no training.",
)
@click.option(
    "--predictions",
    "given",
    multiple=True,
    metavar="NAME=PATH.h5ad",
    help="Anybody's predictions, scored beside on the same spots. Repeatable.",
)
@click.option(
    "--compare",
    type=options.ARCHITECTURES,
    multiple=True,
    help="Another head to train on the same folds. Repeatable.",
)
@click.option(
    "--clusters",
    type=int,
    help="Clusters of a section's spots, at least 2. [default: as many as labels; 2 where there "
    "are none, and for cancer against the rest]",
)
@click.option("--no-complexities", is_flag=True, help="No curves of 3 autoencoders and 3 heads.")
@options.training_options
def evaluate(
    data: Path,
    out: Path,
    split: str | None,
    model: str | None,
    given: tuple[str, ...],
    compare: tuple[str, ...],
    clusters: int | None,
    no_complexities: bool,
    **chosen: Any,
) -> None:
    """Hold out every patient or section in turn, and score them beside all baselines.

    DATA is a folder as for fit. With --model, a finished run is scored on it instead. Five
    sections of 200 spots take 10 to 30 minutes on 2 cores; --resume goes on after an interrupt.

    \b
    Example:
      histospace-tf evaluate her2st --split patient --pretrain breast_images --out evaluation
      histospace-tf evaluate other_data --model run --out external
    """
    with user_errors(out=out):
        from histospace_tf import first_checks

        keywords: dict[str, Any] = {
            "predictions": options.named_files(given),
            "clusters": clusters,
        }
        if model is not None:
            options.refuse_with_model(click.get_current_context())
            run = packaged.run_folder(model)
            keywords.update({name: chosen[name] for name in options.WITH_MODEL})
            first_checks.evaluate_run(data, run, out, **keywords)
            load_tensorflow()
            from histospace_tf import scoring

            scored = scoring.evaluate_run(data, run, out, **keywords)
            click.echo(scored.summary())
            return
        settings = options.settings(chosen)
        keywords |= {
            "split": split,
            "with_complexities": not no_complexities,
            "compare": compare,
            **chosen,
        }
        first_checks.evaluate(settings, data, out, **keywords)
        load_tensorflow()
        from histospace_tf import evaluation

        result = evaluation.evaluate(settings, data, out, **keywords)
        click.echo(result.summary())


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
        from histospace_tf import reporting as reporting

        shown = [gene.strip() for gene in (genes or "").split(",") if gene.strip()]
        with reading(f"run {str(run)!r}"):
            page = reporting.render(run, genes=shown or None)
        click.echo(f"  {page}")
