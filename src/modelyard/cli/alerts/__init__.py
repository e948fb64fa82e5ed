"""`modelyard alerts …`: one file per verb; only the one that was asked for is imported."""

from modelyard.cli.lazy import Entry, build_group

VERBS: dict[str, Entry] = {
    "list": Entry("modelyard.cli.alerts.list:list_alerts", "Show what fires, and what may."),
    "history": Entry("modelyard.cli.alerts.history:history", "Show what fired and ended."),
    "rules": Entry("modelyard.cli.alerts.rules:rules", "Show the rules in force."),
    "test": Entry(
        "modelyard.cli.alerts.preview:preview", "Look at rules now, or send receivers a test."
    ),
    "silence": Entry("modelyard.cli.alerts.silence:silence", "Tell nobody of a rule for a while."),
    "unsilence": Entry("modelyard.cli.alerts.silence:unsilence", "End a silence."),
}

app = build_group(
    VERBS,
    rich_markup_mode="markdown",
    help="What is wrong, who was told, and what would raise an alert.",
)
