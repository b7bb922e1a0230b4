"""From files to tiles and targets: readers, slides, stain, tiles, expression, splits, tf.data."""
