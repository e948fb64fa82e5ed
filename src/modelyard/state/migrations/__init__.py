"""Alembic migrations, run at the controller's start."""
