"""Parts of `export`: one module per format, and the checks against Keras."""
