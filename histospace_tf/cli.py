"""The command line: flags -> one call. TensorFlow is imported only inside commands that need it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import histospace_tf
from histospace_tf import api, cli_options, outputs, packaged, run_settings
from histospace_tf.config import Architecture
from histospace_tf.outputs import say
from histospace_tf.vocabulary import CheckError, InputError

FOLDER = click.Path(path_type=Path)
FILE = click.Path(path_type=Path)
EXPORTS = ("saved_model", "tflite", "onnx")


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


def _load_tensorflow() -> None:
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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(histospace_tf.__version__, prog_name="histospace-tf")
def main() -> None:
    """Spatial gene expression predicted from ordinary H&E histology images."""
    # A scheduler that stops a job ends it like Ctrl-C: drafts go, and what --resume needs stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@main.command()
@click.argument("data", type=FOLDER, required=False)
@click.option("--out", type=FOLDER, help="Run folder to write. [default: runs/<date-time>]")
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
    type=FOLDER,
    multiple=True,
    help="With --no-hold-out: folder of evaluate on the same DATA, whose scores and trust the "
    "model carries. Repeatable.",
)
@cli_options.training_options
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

        settings = cli_options.settings(chosen, is_simulated=data is None)
        if out is None:
            raise InputError("--resume needs --out RUN, the run to go on with")
        options: dict[str, Any] = {
            "hold_out": hold_out,
            "no_hold_out": no_hold_out,
            "evaluations": evaluations,
            "resume": resume,
            **chosen,
        }
        first_checks.fit(settings, data, out, **options)
        _load_tensorflow()
        from histospace_tf import fitting

        result = fitting.fit(settings, data, out, **options)
        click.echo(result.summary())


@main.command()
@click.argument("data", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Folder to write.")
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
    metavar="NAME=FILE.h5ad",
    help="Anybody's predictions, scored beside on the same spots. Repeatable.",
)
@click.option(
    "--compare",
    type=cli_options.ARCHITECTURES,
    multiple=True,
    help="Another head to train on the same folds. Repeatable.",
)
@click.option(
    "--clusters",
    type=int,
    default=2,
    show_default=True,
    help="Clusters of a section's spots, at least 2.",
)
@click.option("--no-complexities", is_flag=True, help="No curves of 3 autoencoders and 3 heads.")
@cli_options.training_options
def evaluate(
    data: Path,
    out: Path,
    split: str | None,
    model: str | None,
    given: tuple[str, ...],
    compare: tuple[Architecture, ...],
    clusters: int,
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

        options: dict[str, Any] = {
            "predictions": cli_options.named_files(given),
            "clusters": clusters,
        }
        if model is not None:
            cli_options.refuse_with_model(click.get_current_context())
            run = packaged.run_folder(model)
            for name in ("layout", "image", "mpp", "force"):
                options[name] = chosen[name]
            first_checks.evaluate_run(data, run, out, **options)
            _load_tensorflow()
            from histospace_tf import external

            scored = external.evaluate_run(data, run, out, **options)
            click.echo(scored.summary())
            return
        settings = cli_options.settings(chosen)
        options |= {
            "split": split,
            "with_complexities": not no_complexities,
            "compare": compare,
            **chosen,
        }
        first_checks.evaluate(settings, data, out, **options)
        _load_tensorflow()
        from histospace_tf import evaluation

        result = evaluation.evaluate(settings, data, out, **options)
        click.echo(result.summary())


@main.command()
@click.argument("run", type=FOLDER)
@click.option("--genes", help="Genes to map, separated by commas. [default: known and best ones]")
def report(run: Path, genes: str | None) -> None:
    """Render report.html again, from the folder of a run or an evaluation.

    \b
    Example:
      histospace-tf report evaluation --genes ERBB2,GNAS
    """
    with user_errors(out=run):
        from histospace_tf import report as reporting

        shown = [gene.strip() for gene in (genes or "").split(",") if gene.strip()]
        click.echo(f"  {reporting.render(run, genes=shown or None)}")


@main.command()
@click.argument("slide", type=FILE)
@click.option(
    "--model",
    help="Run folder of fit, or a packaged model's name. [default: breast-her2st, packaged]",
)
@click.option("--out", type=FILE, required=True, help=".h5ad to write.")
@click.option(
    "--spots",
    type=FILE,
    help="CSV or TSV with columns pixel_x, pixel_y; Space Ranger's tissue_positions; or an .h5ad's "
    "spots. [default: a grid]",
)
@click.option("--mpp", type=float, help="Microns per pixel, where the image does not say.")
@click.option(
    "--step-um", type=float, help="Distance of the grid's tiles in microns. [default: 100]"
)
@cli_options.target_options
@click.option("--fast", is_flag=True, help="No averaging over flips and rotations of a tile.")
@click.option("--server", help="HOST:PORT[/NAME] of TF Serving with the model. [default: none]")
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
        options: dict[str, Any] = {
            "spots": spots,
            "mpp": mpp,
            "step_um": step_um,
            "targets": cli_options.targets(chosen),
            "fast": fast,
            "server": server,
            "resume": resume,
            "force": force,
        }
        first_checks.predict(slide, run, out, **options)
        _load_tensorflow()
        from histospace_tf import predicting

        result = predicting.predict(slide, run, out, **options)
        click.echo(result.summary())


@main.command()
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
        if name is not None:
            click.echo(packaged.card(name), nl=False)
            return
        found = packaged.models()
        if as_json:
            click.echo(json.dumps([model.to_json() for model in found], indent=1))
            return
        click.echo("\n\n".join(model.summary() for model in found))
        click.echo("\nNext: histospace-tf predict SLIDE --out slide.h5ad")


@main.command()
@click.argument("prediction", type=FILE)
@cli_options.target_options
@click.option("--force", is_flag=True, help="Replace finished outputs.")
def convert(prediction: Path, force: bool, **chosen: Any) -> None:
    """Write a finished prediction in other formats: predict's, without predicting again.

    PREDICTION is an .h5ad that predict wrote.

    \b
    Example:
      histospace-tf convert slide.h5ad --geojson slide.geojson --table slide.parquet
    """
    with user_errors():
        from histospace_tf import output_targets

        for path in output_targets.convert(prediction, cli_options.targets(chosen), force=force):
            click.echo(f"  {path}")


@main.command()
@click.argument("run")
@click.option("--out", type=FOLDER, required=True, help="Folder for a folder a format.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(EXPORTS),
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

        folder, formats = packaged.run_folder(run), formats or EXPORTS
        first_checks.export(folder, out, formats=formats, force=force)
        _load_tensorflow()
        from histospace_tf import bundle
        from histospace_tf import export as exporting

        tiles = folder / "parity_tiles.npz"
        say("Exporting, and checking the files in new processes: about a minute.")
        report = exporting.export(
            bundle.load(folder),
            out,
            parity_tiles=tiles if tiles.is_file() else None,
            formats=formats,
            force=force,
            keep_all=keep_all,
        )
        click.echo(report.summary())


@main.command()
@click.argument("data", type=FOLDER)
@click.option("--layout", help="Layout of DATA, where it is not recognised.")
@click.option("--image", type=FILE, help="Full-resolution image of DATA's only section.")
@click.option("--mpp", type=float, help="Microns per pixel of DATA's images, where not known.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("--overlay", type=FOLDER, help="Folder to draw each section's spots over its image.")
def check(
    data: Path,
    layout: str | None,
    image: Path | None,
    mpp: float | None,
    as_json: bool,
    overlay: Path | None,
) -> None:
    """Say what is in a data folder, an image or a slide, what is wrong with it, and what to do.

    Exit code 0: sound; 1: usable, with warnings; 2: unusable.

    \b
    Example:
      histospace-tf check her2st --overlay overlays
    """
    with user_errors(code=2):
        from histospace_tf import checking

        report = checking.check(data, layout=layout, image=image, mpp=mpp, overlay=overlay)
        click.echo(json.dumps(report.to_json(), indent=1) if as_json else report.text())
        sys.exit(report.exit_code)


@main.command()
@click.argument("images", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Folder to write.")
@click.option(
    "--method",
    type=click.Choice(["vahadane", "macenko", "reinhard"]),
    default="vahadane",
    show_default=True,
)
@click.option(
    "--reference", type=FILE, help="Image whose colours are taken. [default: textbook H&E]"
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the pixel sample.")
@click.option("--force", is_flag=True, help="Replace a finished folder.")
def normalize(
    images: Path, out: Path, method: str, reference: Path | None, seed: int, force: bool
) -> None:
    """Standardise the colours of H&E images, and draw the four steps.

    \b
    Example:
      histospace-tf normalize slides --out normalised --reference slides/good.png
    """
    with user_errors(out=out):
        from histospace_tf import normalizing

        result = normalizing.normalize(
            images, out, method=method, reference=reference, seed=seed, force=force
        )
        click.echo(result.summary())


@main.command()
@click.option("--out", type=FOLDER, required=True, help="Folder to write.")
@click.option(
    "--patients", type=int, default=5, show_default=True, help="How many, 2 to 26; a section each."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="The same seed gives the same tissue."
)
@click.option("--force", is_flag=True, help="Replace a finished folder.")
def simulate(out: Path, patients: int, seed: int, force: bool) -> None:
    """Make tissue with known truth, in the legacy Spatial Transcriptomics layout.

    \b
    Example:
      histospace-tf simulate --out tissue --patients 4
    """
    with user_errors(out=out):
        from tqdm import tqdm

        from histospace_tf.data_pipelines import simulation

        with tqdm(total=patients, desc="Simulating", unit="patient", delay=2) as bar:
            simulation.simulate(out, patients=patients, seed=seed, force=force, progress=bar.update)
        click.echo(f"{patients} patients in {out}\n\nNext: histospace-tf fit {out} --out run")
