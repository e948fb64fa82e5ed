"""Judging answers: what judges are, and the fake one that tests and demos use."""
