"""Modelyard: from a folder of weights to a production service, and kept there."""

__version__ = "0.1.0"
