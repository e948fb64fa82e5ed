"""docs/deployments.md goes from a first deploy to a canary; its commands are run as they stand."""

import re
from pathlib import Path

import pytest
from tests.documents import ROOT, run_document, terminal

from modelyard.core.rollout import diagram

GUIDE = ROOT / "docs" / "deployments.md"


@pytest.mark.timeout(300)
def test_the_guide_works(tmp_path: Path) -> None:
    with terminal(tmp_path) as opened:
        printed = run_document(GUIDE, opened)

    assert "small:1 on llamacpp; nothing was started" in printed
    assert "went back" in printed
    assert "aborted: rolled back by admin" in printed
    assert "share of requests 20%" in printed
    assert re.search(r"^small-3 .*done", printed, re.MULTILINE) or "small-3: small:2" in printed
    assert re.search(r"compared  [2-9]\d+ requests of the candidate", printed)
    assert "passed  it adds: as expected" in printed


def test_the_picture_is_the_table() -> None:
    text = GUIDE.read_text()
    shown = text.split("<!-- diagram: begin -->")[1].split("<!-- diagram: end -->")[0]

    assert shown.strip() == f"```mermaid\n{diagram()}\n```"
