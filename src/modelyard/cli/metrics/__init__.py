"""`modelyard metrics …`: one file per verb; only the one that was asked for is imported."""

from modelyard.cli.lazy import Entry, build_group

VERBS: dict[str, Entry] = {
    "list": Entry("modelyard.cli.metrics.list:list_metrics", "List every metric there is."),
    "engines": Entry(
        "modelyard.cli.metrics.engines:engines", "Show what engines' own metrics are called here."
    ),
    "rules": Entry("modelyard.cli.metrics.rules:rules", "Print rules for a Prometheus."),
    "dashboard": Entry(
        "modelyard.cli.metrics.dashboard:dashboard", "Print a dashboard for a Grafana."
    ),
}

app = build_group(
    VERBS,
    rich_markup_mode="markdown",
    help="What is measured, for a Prometheus and a Grafana.\n\nGateways and controller tell their "
    "metrics at `/metrics`; rules and dashboard are written from what is declared.",
)
