"""Parts of `export`: a file a format, and what each is held against."""
