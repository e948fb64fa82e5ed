"""docs/metrics.md from the declared metrics: checks it, or writes it with `--write`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from modelyard.core.metrics import controller, engines, gateway
from modelyard.core.metrics.catalogue import ALL
from modelyard.core.metrics.declaration import LABELS, Metric
from modelyard.core.metrics.vocabularies import VOCABULARIES, Vocabulary
from modelyard.gateway.places import KEEP_S, PLACES

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "metrics.md"
HEAD = f"""# Metrics

Written by `scripts/metrics_reference.py --write` from what is declared in
`src/modelyard/core/metrics`; a test holds it current. How to have them scraped and drawn:
[observability.md](observability.md).

A counter's samples end in `_total`, a histogram's in `_bucket`, `_sum` and `_count`. There are no
summaries: what several gateways count can be added up.

Names follow OpenTelemetry's semantic conventions for generative AI where they have one. They are in
development, in a repository of their own (semantic-conventions-genai) and without a release; they
were read in November 2026, when they stood on the general conventions 1.42.0. Their counters of
tokens (`gen_ai.client.inference.tokens`) are a client's; a gateway's are `modelyard_tokens`.

No label holds what a client wrote. A gateway keeps at most {PLACES} combinations of model, version
and slot: what comes beyond them is counted as `other`, and those that are no longer routed go when
nothing ended there for {KEEP_S / 3600:.0f} hour.
"""


def render() -> str:
    """The whole document."""
    parts = [HEAD]
    parts += _section("Of the gateway", "`GET /metrics` of each gateway.", gateway.DECLARED)
    parts += _section("Of the controller", "`GET /metrics` of the controller.", controller.DECLARED)
    told = (
        "Read by the controller from each ready replica, every 5 s, and told at its own `/metrics`"
        " in one vocabulary. Histograms keep the engine's borders."
    )
    parts += _section("Of engines", told, engines.DECLARED)
    parts += _departures()
    parts += _labels()
    parts += ["\n## Names of the engines\n"]
    for vocabulary in VOCABULARIES:
        parts += _vocabulary(vocabulary)
    return "\n".join(parts) + "\n"


def _section(title: str, told: str, declared: tuple[Metric, ...]) -> Iterator[str]:
    yield f"\n## {title}\n\n{told}\n"
    yield "| metric | kind | unit | labels | meaning |"
    yield "|---|---|---|---|---|"
    for metric in declared:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        row = (f"`{metric.name}`", metric.kind, metric.unit, labels, metric.help)
        yield f"| {' | '.join(row)} |"


def _departures() -> Iterator[str]:
    yield "\n## Conventions, and where they are departed from\n"
    yield "| metric | convention | departure |"
    yield "|---|---|---|"
    for metric in ALL:
        if metric.convention:
            yield f"| `{metric.name}` | `{metric.convention}` | {metric.departure or 'none'} |"


def _labels() -> Iterator[str]:
    yield "\n## Labels\n"
    yield "| label | values |"
    yield "|---|---|"
    for label, told in LABELS.items():
        yield f"| `{label}` | {told} |"


def _vocabulary(vocabulary: Vocabulary) -> Iterator[str]:
    yield f"\n### {vocabulary.engine}\n"
    yield "| here | there, the newest first |"
    yield "|---|---|"
    for mapped in vocabulary.mapped:
        names = ", ".join(" + ".join(f"`{n}`" for n in each) for each in mapped.alternatives)
        yield f"| `{mapped.metric.name}` | {names} |"
    yield "\nLeft out:\n"
    for name, why in vocabulary.left_out.items():
        yield f"- `{vocabulary.prefix}{name}`: {why}"


def main(arguments: list[str]) -> int:
    """Write the document, or say whether it is current."""
    wanted = render()
    if arguments == ["--write"]:
        DOCUMENT.write_text(wanted)
        return 0
    if DOCUMENT.exists() and DOCUMENT.read_text() == wanted:
        return 0
    print(
        "docs/metrics.md is not current\nnext: python scripts/metrics_reference.py --write",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
