"""Networks that others published, a file each, from their papers and public code. Keras alone."""
