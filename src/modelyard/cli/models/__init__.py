"""`modelyard models …`: one file per verb; only the one that was asked for is imported.

To add a verb: a file here with one function, and its line in `VERBS`.
"""

from modelyard.cli.lazy import Entry, build_group

VERBS: dict[str, Entry] = {
    "list": Entry("modelyard.cli.models.list:list_versions", "List registered versions."),
    "show": Entry(
        "modelyard.cli.models.show:show", "Show one version: its facts, its files, its digest."
    ),
    "verify": Entry("modelyard.cli.models.verify:verify", "Check bytes and signatures."),
    "sign": Entry("modelyard.cli.models.sign:sign", "Sign a version, offline."),
    "pull": Entry("modelyard.cli.models.pull:pull", "Copy a version's files out to a folder."),
    "diff": Entry("modelyard.cli.models.diff:diff", "Say what differs between two versions."),
    "alias": Entry("modelyard.cli.models.alias:alias", "Let an alias mean a version."),
    "history": Entry(
        "modelyard.cli.models.history:history", "Show what aliases meant, when and why."
    ),
    "lineage": Entry(
        "modelyard.cli.models.lineage:lineage", "Draw where a version comes from and led to."
    ),
    "export": Entry("modelyard.cli.models.export:export", "Write a version into one file."),
    "import": Entry(
        "modelyard.cli.models.importing:import_", "Take a version in, from a file or from MLflow."
    ),
    "rm": Entry("modelyard.cli.models.rm:remove", "Take a version out for good."),
    "gc": Entry("modelyard.cli.models.gc:collect", "Give back the space of what nothing needs."),
    "rebuild-catalogue": Entry(
        "modelyard.cli.models.rebuild:rebuild", "Make MLflow hold what is registered."
    ),
    "keygen": Entry("modelyard.cli.models.keygen:keygen", "Make a key pair for signing."),
}

app = build_group(
    VERBS,
    rich_markup_mode="markdown",
    help="Look at, check, move and clean up registered versions.",
)
