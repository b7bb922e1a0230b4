"""What predictions are worth: metrics, intervals, tables of genes, clusters, and the ridge."""

DEFAULT_CLUSTERS = 2  # of a section's spots, where no labels say how many
