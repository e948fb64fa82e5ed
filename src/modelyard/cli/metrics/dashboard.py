"""`modelyard metrics dashboard > dashboard.json`."""

import sys


def dashboard() -> None:
    """Print a dashboard for a Grafana, as JSON to import.

    It asks for the Prometheus to read from when it is opened.
    """
    from modelyard.observe.grafana import dashboard_json

    sys.stdout.write(dashboard_json())
