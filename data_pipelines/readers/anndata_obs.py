"""Columns of AnnData's obs, as many programs write them: flags, sections, patients.

Values may be text, numbers, categories, R's TRUE and FALSE or pandas' nullable types.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from histospace_tf.data_pipelines import text_tables
from histospace_tf.data_pipelines.patients import COLUMNS, one_name_each, stated
from histospace_tf.vocabulary import InputError, Problem, named

_SECTION_COLUMNS = (
    "library_id",
    "section",
    "section_id",
    "sample_id",
    "sample",
    "slide",
    "slide_id",
    "orig.ident",
    "batch",
)
_FEWEST = 3  # spots of a section, on average
_MOST = 1000  # values of a column that may be sections
_NEAR = 0.6  # of the distance of neighbours in one section; a section's spots are never so near
_OVERLAP = 0.1  # share of spots that near to a spot of another value: sections, not regions


def as_text(column: pd.Series) -> np.ndarray:
    """(n,) object: values as stripped text, whole numbers without ".0"; None for missing values."""
    return np.array([_text(value) for value in column.astype(object)], dtype=object)


def flags(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Converts a column of yes and no.

    Returns:
        (n,) bool: the flag, False where it is missing; and (n,) bool: whether there is one.
    Raises:
        InputError: a value that is neither yes nor no.
    """
    values = as_text(column)
    known = np.array([value is not None for value in values], bool)
    read = [None if value is None else text_tables.flag(value) for value in values]
    other = [value for value, flag in zip(values, read, strict=True) if value and flag is None]
    if other:
        raise InputError(
            f"obs[{column.name!r}] holds {named(list(dict.fromkeys(other)), 3)}; 0 and 1, or True "
            "and False, work"
        )
    return np.array([flag is True for flag in read], bool), known


def under_tissue(
    obs: pd.DataFrame, names: Sequence[str], where: str
) -> tuple[np.ndarray, list[Problem]]:
    """Finds the spots under tissue by obs["in_tissue"]; all spots where that column is missing.

    Spots without a flag are left out where others have one.

    Returns:
        (n,) bool: which spots are kept; and problems.

    Raises:
        InputError: no spot is under tissue, or a flag is neither yes nor no.
    """
    all_spots = np.ones(len(obs), bool)
    if "in_tissue" not in obs:
        return all_spots, []
    on, known = flags(obs["in_tissue"])
    if not known.any():
        text = f'obs["in_tissue"] is empty for all {len(obs)} spots: all are read.'
        return all_spots, [Problem("warning", where, text)]
    if not on.any():
        raise InputError(f'none of {len(on)} spots is under tissue (obs["in_tissue"] is 0)')
    problems = []
    off = known & ~on
    if off.any():
        text = f"{off.sum()} of {len(on)} spots are not under tissue (in_tissue is 0): skipped."
        problems.append(Problem("note", where, text))
    if not known.all():
        lost = [names[int(i)] for i in np.flatnonzero(~known)]
        problems.append(
            Problem(
                "warning",
                where,
                f'{len(lost)} of {len(on)} spots have no value in obs["in_tissue"] '
                f"({named(lost, 3)}): left out.",
                "Write 1 there for those under tissue.",
            )
        )
    return on, problems


def section_column(
    obs: pd.DataFrame, libraries: Sequence[str], places: np.ndarray | None, *, asked: str | None
) -> tuple[str | None, list[Problem]]:
    """Finds the column whose values are sections.

    Args:
        obs: of the whole file.
        libraries: names in uns["spatial"]; a column that holds them names the sections.
        places: (n, 2 or more) positions of the spots, if known.
        asked: the column that the user names.
    Returns:
        The column, None for a file of one section; and warnings about other columns.
    Raises:
        InputError: no such column; several libraries, or spots of several sections over each
            other, and no column that says which spot belongs to which section.
    """
    if asked is not None:
        if asked not in obs:
            raise InputError(
                f"`section_column` {asked!r}: obs has no such column; it has "
                f"{named([str(name) for name in obs], 10) or 'none'}"
            )
        if not any(value is not None for value in as_text(obs[asked])):
            raise InputError(f"`section_column` {asked!r}: the column is empty")
        return asked, []
    names = set(libraries)
    values_of = {str(name): _values(obs[name]) for name in obs if obs[name].nunique() <= _MOST}
    for column in sorted(values_of, key=_rank):
        values = values_of[column]
        if column in _SECTION_COLUMNS and names and values and (values <= names or names < values):
            return column, []
        if len(names) > 1 and values == names:
            return column, []
    several = [
        column
        for column in _SECTION_COLUMNS
        if 1 < len(values_of.get(column, ())) <= len(obs) / _FEWEST  # else it numbers the spots
    ]
    if len(names) > 1:
        hint = f"`section_column` {several[0]}" if several else "a column library_id"
        raise InputError(
            f'{len(names)} sections in uns["spatial"] ({named(list(libraries), 3)}), and no column '
            f"of obs holds these names, to tell whose a spot is; {hint} works"
        )
    _refuse_overlap(obs, several, places)
    _refuse_shared_array(obs, values_of)
    return None, [_one_section(column, obs, values_of[column]) for column in several]


def _one_section(column: str, obs: pd.DataFrame, values: set[str]) -> Problem:
    missing = sum(value is None for value in as_text(obs[column]))
    without = f"; {missing} spots have none" if missing else ""
    return Problem(
        "warning",
        "obs",
        f"the {len(values)} values of obs[{column!r}] ({named(sorted(values), 3)}{without}) are "
        "read as parts of one section.",
        f"If each is a section, pass `section_column` {column} (in sections.csv: section_column).",
    )


def labels(obs: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Columns that may hold labels of spots (few values, shared by many spots); "" for missing."""
    labels_of = {}
    for column in obs:
        if not 1 < obs[column].nunique() <= max(len(obs) / 2, 2):
            continue
        values = as_text(obs[column])
        numbers = pd.api.types.is_float_dtype(obs[column].dtype)
        if not numbers or all(value is None or value.isdigit() for value in values):
            labels_of[str(column)] = tuple(value or "" for value in values)
    return labels_of


def patients(obs: pd.DataFrame) -> tuple[str, list[str]]:
    """The first column that names patients, and their sorted names; ("", []) without one."""
    for column in COLUMNS:
        if column in obs:
            named_ones = {stated(value) for value in _values(obs[column])}
            all_names = sorted(name for name in named_ones if name is not None)
            names = [name for name in all_names if name not in one_name_each(all_names)]
            if names:
                return column, names
    return "", []


def _refuse_overlap(obs: pd.DataFrame, several: Iterable[str], places: np.ndarray | None) -> None:
    """Refuses a file in which spots of several values of a column lie over each other."""
    for column in several:
        values, shown = as_text(obs[column]), named(sorted(_values(obs[column])), 3)
        share = _share_near(values, places)
        if share > _OVERLAP:
            raise InputError(
                f"spots of several values of obs[{column!r}] ({shown}) stand over each other "
                f"({share:.0%} of them): these are several sections in one file. Pass "
                f"`section_column` {column}"
            )


def _refuse_shared_array(obs: pd.DataFrame, values_of: Mapping[str, set[str]]) -> None:
    """Refuses a file in which many spots share their array position with another spot."""
    place = ["array_row", "array_col"]
    if not set(place) <= set(obs):
        return
    shared = obs.dropna(subset=place).duplicated(place, keep=False)
    if shared.sum() <= _OVERLAP * len(obs):
        return
    apart = [
        column
        for column, values in values_of.items()
        if len(values) > 1 and not obs.dropna(subset=place).duplicated([*place, column]).any()
    ]
    hint = (
        f"`section_column` {min(apart, key=_rank)}"
        if apart
        else "a column of obs that tells them apart, and `section_column` with its name,"
    )
    raise InputError(
        f"{shared.sum()} of {len(obs)} spots have the array_row and array_col of another spot: "
        f"these are several sections in one file. {hint} works"
    )


def _share_near(values: np.ndarray, places: np.ndarray | None) -> float:
    """Share of spots that are nearer to a spot of another value than spots of one section are."""
    if places is None or len(places) != len(values):
        return 0.0
    xy = np.asarray(places)[:, :2].astype(float)
    known = np.isfinite(xy).all(axis=1) & np.array([value is not None for value in values])
    xy, values = xy[known], values[known]
    trees = {value: cKDTree(xy[values == value]) for value in dict.fromkeys(values)}
    if len(trees) < 2:
        return 0.0
    near = np.zeros(len(xy), bool)
    own = np.full(len(xy), np.inf)
    for value, tree in trees.items():
        inside = values == value
        if tree.n > 1:
            own[inside] = tree.query(xy[inside], k=2)[0][:, 1]
    pitch = float(np.median(own))
    for value, tree in trees.items():
        outside = values != value
        near[outside] |= tree.query(xy[outside])[0] < _NEAR * pitch
    return float(near.mean()) if np.isfinite(pitch) else 0.0


def _values(column: pd.Series) -> set[str]:
    return {value for value in as_text(pd.Series(column.unique())) if value is not None}


def _rank(column: str) -> int:
    return _SECTION_COLUMNS.index(column) if column in _SECTION_COLUMNS else len(_SECTION_COLUMNS)


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return None
        value = int(value) if float(value).is_integer() else value
    text = str(value).strip()
    return None if text.lower() in text_tables.MISSING else text
