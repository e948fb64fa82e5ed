"""`modelyard keys …`: one file per verb; only the one that was asked for is imported."""

from modelyard.cli.lazy import Entry, build_group

VERBS: dict[str, Entry] = {
    "create": Entry("modelyard.cli.keys.create:create", "Make an API key; it is shown once."),
    "list": Entry("modelyard.cli.keys.list:list_keys", "List the keys, without their secrets."),
    "revoke": Entry("modelyard.cli.keys.revoke:revoke", "End a key, within a second."),
    "rotate": Entry("modelyard.cli.keys.rotate:rotate", "Give a key another secret."),
    "limit": Entry(
        "modelyard.cli.keys.limit:limit", "Bound a tenant's keys together, or a model's callers."
    ),
    "usage": Entry("modelyard.cli.keys.usage:usage", "Show what tenants and keys used."),
}

app = build_group(
    VERBS,
    rich_markup_mode="markdown",
    help="Who may ask what, and how much of it.\n\nWithout any key, everybody on this machine may; "
    "as soon as there is one, every request needs one.",
)
