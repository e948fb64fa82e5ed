"""The checks, one file per theme; `catalogue.py` puts them in order.

To add a check: an `async def` that takes a `Bench`, and its `Check` in the file's `CHECKS`.
"""
