"""Parts of `export`: one module per format, and what each is held against."""
