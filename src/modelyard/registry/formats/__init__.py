"""Strict readers of weight files' headers, over bytes that nobody vouches for."""
