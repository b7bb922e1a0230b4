"""Positions of spots: on their printed array, on their image and its previews, and its scale."""
