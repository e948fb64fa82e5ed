"""Metrics, trends, traces, alerts, cost."""
