"""The commands of the documents work, in the order in which they stand there."""

import os
import re
from pathlib import Path

import pytest
from tests.documents import MARKS, ROOT, Block, blocks, run_document, terminal

README = ROOT / "README.md"
DOCUMENTS = (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))


@pytest.mark.timeout(300)
def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    with terminal(tmp_path) as opened:
        run_document(README, opened)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_scripts_that_documents_name_are_there(document: Path) -> None:
    for block in blocks(document.read_text()):
        for script in re.findall(r"^(?:\S*/)?(scripts/\w+|\.ci/\w+)", block.body, re.MULTILINE):
            assert os.access(ROOT / script, os.X_OK), f"{document.name} names {script}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_mark_is_one_that_is_known(document: Path) -> None:
    assert {block.mark for block in blocks(document.read_text())} <= MARKS


def test_blocks_are_found_with_their_marks() -> None:
    text = (
        "```sh\na\nb\n```\ntext\n```python\nx\n```\n```sh background\nc\n```\n```sh norun\nd\n```\n"
    )

    assert blocks(text) == [
        Block("", "a\nb\n"),
        Block("background", "c\n"),
        Block("norun", "d\n"),
    ]
