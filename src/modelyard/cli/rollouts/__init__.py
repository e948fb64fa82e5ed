"""`modelyard rollouts …`: one file per verb; only the one that was asked for is imported."""

from modelyard.cli.lazy import Entry, build_group

VERBS: dict[str, Entry] = {
    "list": Entry("modelyard.cli.rollouts.list:list_rollouts", "List rollouts, newest first."),
    "show": Entry("modelyard.cli.rollouts.show:show", "Show one with its tests and numbers."),
    "watch": Entry("modelyard.cli.rollouts.watch:watch", "Follow one until it is over."),
}

app = build_group(VERBS, help="How versions became live, or why they did not.")
