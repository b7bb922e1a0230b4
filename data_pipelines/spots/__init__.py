"""Where spots stand: their array, their image, its previews, its scale."""
