"""Spatial gene expression predicted from ordinary H&E histology images."""

__version__ = "0.1.0"
