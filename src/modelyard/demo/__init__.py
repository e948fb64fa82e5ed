"""The demo model and what is asked of it."""
