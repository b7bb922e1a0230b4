"""The stages of one fold: sections in, a fitted and scored head out."""
