"""Counts of every reader: checked raw counts, genes alone, identified by id, on one gene axis."""
