"""Sections made ready: read, cut into tiles, lined up, encoded, split into folds."""
