"""The management REST API, one file per noun."""
