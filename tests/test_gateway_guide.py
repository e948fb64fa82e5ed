"""docs/gateway.md takes a LiteLLM user across; its commands are run as they stand there."""

from pathlib import Path

import pytest
from tests.documents import ROOT, run_document, terminal

GUIDE = ROOT / "docs" / "gateway.md"


@pytest.mark.timeout(300)
def test_the_guide_works(tmp_path: Path) -> None:
    with terminal(tmp_path) as opened:
        printed = run_document(GUIDE, opened)

    assert "litellm_settings.success_callback" in printed  # what does not map is told
    assert '"object":"chat.completion"' in printed.replace(" ", "")
    assert "attempt 1" in printed
    assert printed.count("x-modelyard-cache: hit") == 2
    assert "HTTP/1.1 429" in printed
    assert "x-modelyard-limit: requests_per_min" in printed
    assert "alice" in printed
