"""Spatial gene expression predicted from ordinary H&E histology images."""

from histospace_tf.api import evaluate, features, fit, load, predict, predict_slides, tissue, view

__version__ = "0.2.0"
__all__ = ["evaluate", "features", "fit", "load", "predict", "predict_slides", "tissue", "view"]
