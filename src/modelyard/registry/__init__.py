"""Verified, immutable, deduplicated model versions."""
