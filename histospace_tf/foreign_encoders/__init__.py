"""Frozen encoders that others trained: stated in a line of text, opened as a Keras model."""
