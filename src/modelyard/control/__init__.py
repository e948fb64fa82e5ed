"""Supervisor, reconcile loop and the feed that gateways follow."""
