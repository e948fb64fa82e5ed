"""The same numbers in another file format for an engine."""
