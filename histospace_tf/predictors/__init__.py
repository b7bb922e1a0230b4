"""Everything that says what a spot expresses: our model, baselines, marks, other people's."""
