"""`modelyard conformance …`: one file per verb; only the one that was asked for is imported."""

from modelyard.cli.lazy import Entry, build_group

VERBS: dict[str, Entry] = {
    "engines": Entry(
        "modelyard.cli.conformance.engines:engines",
        "Start the scripted engines that a gateway is put before.",
    ),
    "run": Entry("modelyard.cli.conformance.run:run", "Check a gateway that runs."),
    "self": Entry(
        "modelyard.cli.conformance.own:own", "Check Modelyard's own gateway, all in one."
    ),
}

app = build_group(
    VERBS,
    rich_markup_mode="markdown",
    help="Check what an OpenAI-compatible gateway does when clients leave, engines fail, streams "
    "break.\n\nAny gateway: start the engines, put it before them, run the checks.",
)
