"""What the terminal says of a finished prediction."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from histospace_tf.slide_prediction import summaries


@pytest.fixture
def table() -> anndata.AnnData:
    var = pd.DataFrame({"trust": ["yes", "yes", "no"]}, index=["A", "B", "C"])
    made = anndata.AnnData(np.zeros((2, 3), np.float32), var=var)
    made.uns["histospace_tf"] = {"trust_from": "5 held-out spots of one patient"}
    return made


def test_trust_familiarity_and_intervals_have_a_line_each(table: anndata.AnnData) -> None:
    (trust,) = summaries.lines(table)
    assert trust.startswith("2 of 3 genes are trusted, from spots that were held out")
    table.uns["histospace_tf"] |= {"familiarity": "like it", "intervals": "80% intervals"}
    assert summaries.lines(table)[1:] == [
        "The slide is like it.",
        'layers["lower"] and layers["upper"]: 80% intervals.',
    ]
    del table.var["trust"]
    assert "is not known" in summaries.trust(table)


def test_trust_from_a_patient_that_was_trained_on_holds_for_no_other(
    table: anndata.AnnData,
) -> None:
    table.var["trust"] = ["weak", "weak", "no"]
    about = table.uns["histospace_tf"]
    about["trust_from"] = "5 held-out spots; other sections of patient C were trained on"
    about["trust_of_new_patients"] = False
    said = summaries.trust(table)
    assert said.startswith("No gene is trusted on a new patient: trust is from 5 held-out spots;")
    assert "yes 0, weak 2, no 1" in said
