"""Commands about data alone: check, normalize, simulate."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from histospace_tf.commands.options import PATH
from histospace_tf.commands.session import user_errors


@click.command()
@click.argument("data", type=PATH)
@click.option("--layout", help="Layout of DATA, where it is not recognised.")
@click.option("--image", type=PATH, help="Full-resolution image of DATA's only section.")
@click.option("--mpp", type=float, help="Microns per pixel of DATA's images, where not known.")
@click.option(
    "--section-column",
    metavar="NAME",
    help="Column of AnnData's obs that tells sections apart. [default: by uns['spatial']]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("--overlay", type=PATH, help="Folder to draw each section's spots over its image.")
def check(
    data: Path,
    layout: str | None,
    image: Path | None,
    mpp: float | None,
    section_column: str | None,
    as_json: bool,
    overlay: Path | None,
) -> None:
    """Say what is in a data folder, an image or a slide, what is wrong with it, and what to do.

    Exit code 0: sound; 1: usable, with warnings; 2: unusable; 3: reading failed.

    \b
    Example:
      histospace-tf check her2st --overlay overlays
    """
    with user_errors():
        from histospace_tf import checking

        report = checking.check(
            data,
            layout=layout,
            image=image,
            mpp=mpp,
            section_column=section_column,
            overlay=overlay,
            show_progress=sys.stderr.isatty(),  # in a file it would stand before "Error:"
        )
        click.echo(json.dumps(report.to_json(), indent=1) if as_json else report.text())
        sys.exit(report.exit_code)


@click.command()
@click.argument("images", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder to write.")
@click.option(
    "--method",
    type=click.Choice(["vahadane", "macenko", "reinhard"]),
    default="vahadane",
    show_default=True,
)
@click.option(
    "--reference", type=PATH, help="Image whose colours are taken. [default: textbook H&E]"
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


@click.command()
@click.option("--out", type=PATH, required=True, help="Folder to write.")
@click.option(
    "--patients",
    type=int,
    default=5,
    show_default=True,
    help="2 to 26, of one section each.",
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
