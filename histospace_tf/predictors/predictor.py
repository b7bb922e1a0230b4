"""What a predictor is: one entry of the registry, and what fitting it gives.

Everything that says what a spot expresses is one: our model, constants, a ridge on colour, another
network, a file that somebody brings. A fold is a loop over them (`folds.fold_run`), and tables,
figures, report and model card take names, labels, colours and order from their entries.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from histospace_tf.scores import metrics

if TYPE_CHECKING:
    from histospace_tf.cohort.sides import SpotsOfSection, TrainingSpots
    from histospace_tf.config import Config
    from histospace_tf.training import Session

# In the order of tables: ours, then others that learn or come from a file, then what must be
# beaten, then what nothing can be compared with fairly, for it knows the answer.
KINDS = ("ours", "other", "baseline", "mark")
Kind = Literal["ours", "other", "baseline", "mark"]

# Okabe and Ito, Color Universal Design, 2008: colour-blind readers tell them apart.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#000000", "#777777"


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What predictions are scored against.

    values, smoothed: (n, g) in the panel's unit, and the same averaged with each spot's neighbours.
    counts: (n, all genes) raw counts. columns: (g,) of the panel's genes in them, -1 for none.
    """

    values: np.ndarray
    smoothed: np.ndarray
    counts: sparse.csr_matrix
    columns: Sequence[int]
    normalisation: str
    target_sum: float
    seed: int


class Fitted(abc.ABC):
    """A predictor after fitting.

    history: rows of history.csv.
    choice: what inner groups chose, or settings fixed, by name, for the manifest; None: there was
        nothing to choose. Beside "epochs", "most" says how many there might have been and "by"
        what they were chosen by ("fixed": nothing).
    """

    history: Sequence[dict[str, object]] = ()
    choice: dict[str, Any] | None = None

    @abc.abstractmethod
    def predict(self, spots: SpotsOfSection) -> np.ndarray | None:
        """Expression of one section's held-out spots, all at once.

        Returns:
            (n, g) in the panel's unit; None where the predictor says nothing of this section.
        """

    def arrays(self) -> dict[str, np.ndarray]:
        """What was learned, for a run's `baselines.npz`; empty where it is kept elsewhere."""
        return {}


class Predictor(abc.ABC):
    """An entry of the registry; one serves every fold, so it keeps nothing of a fit on itself.

    name: its key in scores.json and its column in gene_scores.csv.
    label: its name in tables and figures; note: what a model card adds.
    kind: of KINDS.
    reads_held_out: it reads the held-out section's expression: a mark to compare with.
    is_compared: `evaluate --compare` may name it.
    looks_at_tiles: its values may follow how dense tissue is, so their depth is audited.
    knows_patient: it needs training spots of the very patient, so a new one has no such row.
    is_constant: it gives all spots of a section the same values.
    predicts: it gives values for spots; otherwise it has a row of scores alone.
    colour, marker: of its points in figures, both or none; None: purple, and a marker that no
        other predictor there has.
    """

    name: str
    label: str
    note: str = ""
    kind: Kind = "other"
    reads_held_out: bool = False
    is_compared: bool = False
    looks_at_tiles: bool = True
    knows_patient: bool = False
    is_constant: bool = False
    predicts: bool = True
    colour: str | None = None
    marker: str | None = None

    @property
    def varies_in_section(self) -> bool:
        """It predicts, and tells spots of a section apart."""
        return self.predicts and not self.is_constant

    def uses_slide_context(self, settings: Config) -> bool:
        """Whether it reads the slide's tissue tiles beside the spots' own."""
        return False

    def note_of(self, chosen: Mapping[str, Any]) -> str:
        """The note, with what is particular to a run. chosen: `Fitted.choice`; empty if unknown."""
        return self.note

    def row(self, predicted: np.ndarray | None, held_out: Measured) -> metrics.Row | None:
        """Its row of scores.json for a section, or for all sections pooled.

        Args:
            predicted: (n, g) in the panel's unit; None: it says nothing of these spots.
            held_out: what was measured there.
        """
        if predicted is None:
            return None
        return metrics.score_row(predicted, held_out.values, measured_smoothed=held_out.smoothed)

    def refuse(self, settings: Config) -> None:  # noqa: B027 (most refuse nothing)
        """Refuses settings that it cannot be fitted with, before any work is done.

        Raises:
            InputError: naming the setting.
        """

    def open(self) -> None:  # noqa: B027 (most need nothing)
        """Loads what it brings along, once and before any data are read.

        Raises:
            InputError: it cannot be read or used.
        """

    @abc.abstractmethod
    def fit(self, spots: TrainingSpots, settings: Config, session: Session) -> Fitted:
        """Fits it on the training side of a fold.

        Args:
            spots: all that may be learned from.
            settings: of the run.
            session: devices, seed, checkpoints, of which a training takes a folder of its own
                (`session.within(name)`).
        """

    def load(self, arrays: dict[str, Any]) -> Fitted | None:
        """What `Fitted.arrays` of this predictor kept; None where it keeps nothing there."""
        return None
