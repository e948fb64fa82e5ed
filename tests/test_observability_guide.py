"""docs/observability.md goes from `top` to Grafana; its commands are run as they stand."""

import re
from pathlib import Path

import pytest
from tests.documents import ROOT, run_document, terminal

GUIDE = ROOT / "docs" / "observability.md"


@pytest.mark.timeout(300)
def test_the_guide_works(tmp_path: Path) -> None:
    with terminal(tmp_path) as opened:
        printed = run_document(GUIDE, opened)

    assert re.search(r"^small +1 +1 ready", printed, re.MULTILINE)  # top
    assert "small, the last 24 hours" in printed
    counted = re.findall(
        r'^modelyard_requests_total\{[^}]*model="small"[^}]*\} (\d+)', printed, re.M
    )
    assert sum(map(int, counted)) >= 5
    assert re.search(r"^modelyard_live\S* \d", printed, re.MULTILINE)
    assert "errors-fast" in printed
    assert "vllm:num_requests_running" in printed
