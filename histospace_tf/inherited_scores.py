"""Scores that a model carries from evaluations: it was trained on everything, and has none itself.

An evaluation holds out every group of the same data in turn and fits with the same settings, so it
says what to expect of the model that is then trained on all of it.

run/evaluations.json   scores.json of every evaluation, by what it was split by
run/genes.csv          the first evaluation's rows of the panel's genes, and gene_r of the others
run/intervals.csv      the first evaluation's, of the panel's genes
run/gene_sets.csv      the first evaluation's, where it scored sets; `predict` takes those that have
                       the same genes in the model's panel
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from histospace_tf import presets
from histospace_tf.bundle_file import encoder_origin
from histospace_tf.config import Config
from histospace_tf.faults import reading
from histospace_tf.scores import gene_sets, gene_table, intervals
from histospace_tf.vocabulary import InputError, named

FILE = "evaluations.json"
# Settings that change no score of ours but in its last digits.
_FREE = ("seed", "strategy", "peers")


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """A finished evaluation.

    split: "patient" or "section"; config: its settings; scores: scores.json.
    checksums: of its sections' files; encoders: the images that trained its encoders, as text.
    """

    folder: Path
    split: str
    config: Config
    scores: dict[str, Any]
    checksums: dict[str, dict[str, str]]
    encoders: tuple[str, ...]


def read(folders: Sequence[Path]) -> list[Evaluation]:
    """The evaluations in `folders`.

    Raises:
        InputError: a folder holds no evaluation, or two are split alike.
    """
    evaluations = []
    for folder in folders:
        with reading(f"`evaluations` {str(folder)!r}"):
            evaluations.append(_read(folder))
    splits = [evaluation.split for evaluation in evaluations]
    if len(set(splits)) < len(splits):
        raise InputError(
            f"`evaluations`: {len(splits)} evaluations split by {named(splits)}; one each is needed"
        )
    return evaluations


def refuse_other_settings(evaluations: Sequence[Evaluation], config: Config) -> None:
    """Stops where an evaluation was made with other settings than the model's.

    Raises:
        InputError: naming them.
    """
    for evaluation in evaluations:
        changed = _changed(evaluation.config.to_json(), config.to_json())
        if changed:
            raise InputError(
                f"`evaluations` {str(evaluation.folder)!r} was made with another "
                f"{named(changed)}; its scores are not this model's"
            )


def _read(folder: Path) -> Evaluation:
    try:
        manifest, scores, settings = (
            json.loads((folder / name).read_text(encoding="utf-8"))
            for name in ("manifest.json", "scores.json", "config.json")
        )
        gene_table.trust_of([], folder / "genes.csv")
        return Evaluation(
            folder=folder,
            split=scores["split"]["outer"],
            config=presets.from_json(settings, str(folder / "config.json")),
            scores=scores,
            checksums=manifest["data"]["checksums"],
            encoders=tuple(
                sorted({encoder_origin(f["trained_on"]) for f in manifest["folds"].values()})
            ),
        )
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError) as error:
        raise InputError(
            f"`evaluations` {str(folder)!r}: not a folder that `histospace-tf evaluate DATA --out "
            f"DIR` wrote ({error})"
        ) from None


def refuse_other_data(
    evaluations: Sequence[Evaluation], checksums: Mapping[str, Mapping[str, str]]
) -> None:
    """Stops where an evaluation was made on other data.

    Args:
        checksums: of the sections that the model is trained on.
    Raises:
        InputError: naming the sections that are more, fewer or changed.
    """
    for evaluation in evaluations:
        scored = evaluation.checksums
        other = sorted(
            name
            for name in {*scored, *checksums}
            if dict(scored.get(name, {})) != dict(checksums.get(name, {}))
        )
        if other:
            raise InputError(
                f"`evaluations` {str(evaluation.folder)!r} was made on other data: section "
                f"{named(other)} is not in both, or was changed"
            )


def refuse_other_encoder(evaluations: Sequence[Evaluation], origin: str) -> None:
    """Stops where an evaluation's encoders were trained on other images.

    Args:
        origin: what the model's encoder was trained on, of `bundle_file.encoder_origin`.
    Raises:
        InputError: naming both.
    """
    for evaluation in evaluations:
        if evaluation.encoders != (origin,):
            raise InputError(
                f"`evaluations` {str(evaluation.folder)!r}: its encoders were trained on "
                f"{named(evaluation.encoders)}, this model's on {origin!r}; pass the same "
                "`pretrain` or `encoder`"
            )


def write(evaluations: Sequence[Evaluation], genes: Sequence[str], folder: Path) -> None:
    """Writes evaluations.json, genes.csv, intervals.csv and gene_sets.csv into a run's folder.

    Args:
        genes: the model's panel. One that no evaluation scored has trust "unknown".
    """
    values = {evaluation.split: evaluation.scores for evaluation in evaluations}
    (folder / FILE).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    first, *others = evaluations
    table = pd.read_csv(first.folder / "genes.csv", dtype={"gene": str}, keep_default_na=False)
    table = table.set_index("gene").reindex(list(genes))
    table["trust"] = table["trust"].fillna(gene_table.UNKNOWN)
    for other in others:
        known = gene_table.trust_of(genes, other.folder / "genes.csv")
        table[f"gene_r_{other.split}_split"] = known["gene_r"]
    table.to_csv(folder / "genes.csv", index_label="gene")
    if (first.folder / intervals.FILE).is_file():
        widths = pd.read_csv(
            first.folder / intervals.FILE, dtype={"gene": str}, keep_default_na=False
        )
        widths = widths.set_index("gene").reindex(list(genes))
        widths.to_csv(folder / intervals.FILE, index_label="gene")
    if (first.folder / gene_sets.FILE).is_file():
        shutil.copy(first.folder / gene_sets.FILE, folder)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the trust in a run's genes.csv is from.

    words: for readers; empty where no file of the run says so.
    new_patients: whether the held-out patients had no part in training.
    """

    words: str = ""
    new_patients: bool = True

    def of_a_new_slide(self, trust: pd.Series) -> pd.Series:
        """Trust in genes on a slide whose patient was not trained on, as far as is known: "weak" at
        most where other sections of the held-out patients were."""
        return trust if self.new_patients else trust.replace("yes", "weak")


def evidence(run: Path) -> Evidence:
    """What the trust in a run's genes.csv is from.

    Args:
        run: of `fit`, with evaluations.json or with scores of its own.
    Raises:
        InputError: one of them cannot be read.
    """
    path = next((run / name for name in (FILE, "scores.json") if (run / name).is_file()), None)
    if path is None:
        return Evidence()
    with reading(f"scores {str(path)!r}"):
        scores = json.loads(path.read_text(encoding="utf-8"))
        if path.name == FILE:
            scores = next(iter(scores.values()))  # of which genes.csv is
        sections = scores["sections"].values()
        if not sections:
            return Evidence()
        spots = sum(int(entry["spots"]) for entry in sections)
        patients = len({str(entry["patient"]) for entry in sections})
        shared = scores["split"].get("patient_on_both_sides")
    words = f"{spots:,} held-out spots of {len(sections)} section{'s' * (len(sections) > 1)}"
    if shared:
        words += f"; other sections of patient {', '.join(shared)} were trained on"
        return Evidence(words, new_patients=False)
    words += f" of {patients} patient{'s' * (patients > 1)}"
    return Evidence(words if shared is None else f"{words} who were not trained on")


def _changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Settings that differ, as section.name."""
    names = []
    for name in one:
        if name in _FREE or one[name] == other[name]:
            continue
        if isinstance(one[name], Mapping):
            names += [f"{name}.{key}" for key in one[name] if one[name][key] != other[name][key]]
        else:
            names.append(name)
    return names
