"""`modelyard metrics dashboard > dashboard.json`."""

import sys

from modelyard.cli.options import HomeOption


def dashboard(home: HomeOption = None) -> None:
    """Print a dashboard for a Grafana, as JSON to import.

    It asks for the Prometheus to read from when it is opened.
    """
    del home  # understood by every command; this one reads nothing there
    from modelyard.observe.grafana import dashboard_json

    sys.stdout.write(dashboard_json())
