"""Commands about data alone: check, tissue, normalize, simulate."""

from __future__ import annotations

import json
import sys

import click

from histospace_tf import requests
from histospace_tf.commands import options
from histospace_tf.commands.session import user_errors
from histospace_tf.requests import CheckRequest, NormalizeRequest, SimulateRequest, TissueRequest


@click.command()
@options.asks(CheckRequest)
def check(request: CheckRequest) -> None:
    """Say what is in a data folder, an image or a slide, what is wrong with it, and what to do.

    Exit code 0: sound; 1: usable, with warnings; 2: unusable; 3: reading failed.

    \b
    Example:
      histospace-tf check her2st --overlay overlays
    """
    with user_errors():
        from histospace_tf import checking

        report = checking.check(
            request.data,
            **request.how(),
            overlay=request.overlay,
            show_progress=sys.stderr.isatty(),  # in a file it would stand before "Error:"
        )
        text = json.dumps(report.to_json(), indent=1) if request.as_json else report.text()
        click.echo(requests.with_flags(text))
        sys.exit(report.exit_code)


@click.command()
@options.asks(TissueRequest)
def tissue(request: TissueRequest) -> None:
    """Write the outline of a slide's tissue, as predict finds it, for QuPath.

    Correct it there, export it as GeoJSON, and give it back: predict SLIDE --tissue FILE.

    \b
    Example:
      histospace-tf tissue slide.svs --geojson tissue.geojson
    """
    with user_errors(out=request.geojson):
        from histospace_tf import outlining

        click.echo(outlining.outline(request).summary())


@click.command()
@options.asks(NormalizeRequest)
def normalize(request: NormalizeRequest) -> None:
    """Standardise the colours of H&E images, and draw the steps.

    \b
    Example:
      histospace-tf normalize slides --out normalised --reference slides/good.png
    """
    with user_errors(out=request.out):
        from histospace_tf import normalizing

        click.echo(normalizing.normalize(request).summary())


@click.command()
@options.asks(SimulateRequest)
def simulate(request: SimulateRequest) -> None:
    """Make tissue with known truth, in the legacy Spatial Transcriptomics layout.

    \b
    Example:
      histospace-tf simulate --out tissue --patients 4
    """
    with user_errors(out=request.out):
        from tqdm import tqdm

        from histospace_tf.data_pipelines import simulation

        with tqdm(total=request.patients, desc="Simulating", unit="patient", delay=2) as bar:
            simulation.simulate(
                request.out,
                patients=request.patients,
                same_levels=request.same_levels,
                seed=request.seed,
                force=request.force,
                progress=bar.update,
            )
        click.echo(
            f"{request.patients} patients in {request.out}\n\n"
            f"Next: histospace-tf fit {request.out} --out run"
        )
