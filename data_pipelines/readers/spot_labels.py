"""Labels of a cohort's spots, such as a pathologist's regions or a brain's layers.

    HER2ST, ST-Net     the release's own label files (`label_files`)
    AnnData            the first of COLUMNS in obs, or the column that --labels names
    any layout         --labels FILE: one row per spot with its name (barcode, "24x13") and label,
                       and a column section where several sections have a spot of that name

Only in HER2ST and ST-Net one label stands for cancer against the rest (`label_files.POSITIVE`), if
a section has it; in all other data every label counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from histospace_tf.data_pipelines import text_tables
from histospace_tf.data_pipelines.readers import label_files as label_files
from histospace_tf.data_pipelines.readers.label_files import SpotLabels
from histospace_tf.vocabulary import Cohort, InputError, Problem, Section, named, repeats

# Columns of obs, or of a file, that hold labels; the first one present is used.
COLUMNS = (
    "label",
    "labels",
    "annotation",
    "annotations",
    "pathologist",
    "pathologist_annotation",
    "ground_truth",
    "layer",
    "layer_guess",
    "region",
    "tissue_region",
)
_SPOTS = ("spot", "spot_id", "barcode", "barcodes", "spot_name", "name", "id")
_SECTIONS = ("section", "section_id", "library_id", "sample_id", "sample")
_NO_LABEL = text_tables.MISSING | {
    "undetermined",
    "unknown",
    "unassigned",
    "unlabelled",
    "unlabeled",
}
_WHAT = "label table"


def of_cohort(cohort: Cohort, chosen: str | None = None) -> dict[str, SpotLabels]:
    """Finds the labels of all sections that have some.

    Args:
        chosen: a column of obs, or a file; None: the layout's own labels, else COLUMNS.
    Returns:
        Labels by section.
    Raises:
        InputError: as `label_files.read_labels`; no section has the column; a file without a usable
            row; as many labels as half of a section's spots.
    """
    if chosen is not None and Path(chosen).is_file():
        labels_of = _of_file(Path(chosen), cohort)
    elif chosen is None and cohort.layout in label_files.POSITIVE:
        read = [
            (section.name, label_files.read_labels(cohort.source, section, layout=cohort.layout))
            for section in cohort.sections
        ]
        labels_of = {name: labels for name, labels in read if labels is not None}
    else:
        labels_of = _of_columns(cohort, chosen)
    if any(labels.positive in labels.labels for labels in labels_of.values()):
        return labels_of
    return {name: _of_any_kind(name, labels) for name, labels in labels_of.items()}


def _of_any_kind(section: str, known: SpotLabels) -> SpotLabels:
    """Labels of which every one counts, without those that mean an undetermined spot."""
    labels = tuple("" if label.lower() in _NO_LABEL else label for label in known.labels)
    undetermined = len([label for label in known.labels if label]) - len(list(filter(None, labels)))
    kinds = sorted(set(labels) - {""})
    if 2 * len(kinds) > max(len(labels), 4):
        raise InputError(
            f"section {section!r}: {len(kinds)} labels ({named(kinds, 3)}) of {len(labels)} spots; "
            "labels are shared by many spots. Name another column with `labels`"
        )
    problems = list(known.problems)
    if undetermined:
        problems.append(
            Problem(
                "note",
                f"section {section}",
                f"{undetermined} of {len(labels)} spots are labelled as undetermined: they count "
                "in no comparison with labels.",
            )
        )
    return dataclasses.replace(known, labels=labels, positive=None, problems=tuple(problems))


def _of_columns(cohort: Cohort, chosen: str | None) -> dict[str, SpotLabels]:
    labels_of: dict[str, SpotLabels] = {}
    for section in cohort.sections:
        asked = COLUMNS if chosen is None else (chosen,)
        there = [column for column in asked if column in section.labels]
        if there:
            text = f'labels are obs["{there[0]}"]'
            if len(there) > 1:
                text += f"; obs has {named(there[1:])}, too, which `labels` takes"
            problem = Problem("note", f"section {section.name}", f"{text}.")
            labels_of[section.name] = _lined_up(
                section, section.labels[there[0]], [problem], there[0]
            )
    if chosen is not None and not labels_of:
        columns = sorted({column for section in cohort.sections for column in section.labels})
        raise InputError(
            f"`labels` {chosen!r} is neither a file nor a column of obs with a few values; "
            f"{named(columns, 10) or 'the data have no such column'}"
        )
    return labels_of


def _of_file(path: Path, cohort: Cohort) -> dict[str, SpotLabels]:
    table = text_tables.read_table(path, _WHAT)
    where = f"{_WHAT} {str(path)!r}"
    spot = next((c for name in _SPOTS if (c := table.column(name)) is not None), None)
    if spot is None and table.row_names is None:
        spot = table.columns[0]
    section_column = next((c for name in _SECTIONS if (c := table.column(name)) is not None), None)
    rest = [name for name in table.columns if name not in (spot, section_column)]
    label = next((c for name in COLUMNS if (c := table.column(name)) is not None), None)
    if label is None and len(rest) == 1:
        label = rest[0]
    if label is None:
        raise InputError(
            f"{where} has columns {named(table.columns, 8)}; one called "
            f"{', '.join(COLUMNS[:4])} or the like is needed, or a single one beside the spots"
        )
    at = {name: i for i, name in enumerate(table.columns)}
    spots = table.row_names if spot is None else table.texts(spot)
    rows: dict[str, list[tuple[str, str]]] = {}
    for spot_name, cells in zip(spots or (), table.cells, strict=True):
        name = cells[at[section_column]] if section_column is not None else ""
        rows.setdefault(name, []).append((spot_name, cells[at[label]]))
    names = [section.name for section in cohort.sections]
    if section_column is not None and not set(rows) & set(names):
        raise InputError(
            f"{where}: its sections are {named(sorted(rows), 3)}, the data's {named(names, 3)}"
        )
    labels_of: dict[str, SpotLabels] = {}
    for section in cohort.sections:
        pairs = rows.get(section.name if section_column is not None else "", [])
        twice = repeats([spot_name for spot_name, _ in pairs])
        if twice:
            hint = "" if section_column is not None else "; a column section tells sections apart"
            raise InputError(f"{where} has spot {twice[0]!r} more than once{hint}")
        of_spot = dict(pairs)
        if not any(spot_name in of_spot for spot_name in section.spots.names):
            continue
        problems = []
        strange = [spot_name for spot_name in of_spot if spot_name not in set(section.spots.names)]
        if strange:
            text = f"{len(strange)} of {len(of_spot)} rows of {path.name} are of none of its spots"
            problems.append(
                Problem("note", f"section {section.name}", f"{text} ({named(strange, 3)}).")
            )
        labels_of[section.name] = _lined_up(section, of_spot, problems, path.name)
    if not labels_of:
        shown = [spot_name for pairs in rows.values() for spot_name, _ in pairs]
        own = [spot_name for section in cohort.sections for spot_name in section.spots.names]
        raise InputError(
            f"{where}: none of its {len(shown)} spots ({named(shown, 3)}) is one of the data's "
            f"({named(own, 3)})"
        )
    return labels_of


def _lined_up(
    section: Section, of_spot: Mapping[str, str], problems: list[Problem], source: str
) -> SpotLabels:
    """Labels in the order of a section's spots."""
    labels = tuple(of_spot.get(name, "") for name in section.spots.names)
    problems = [*problems, *label_files.spots_without_label(section, labels, source)]
    return SpotLabels(section.spots.names, labels, None, tuple(problems))
