"""Messages between rooms and processes keep their form; a change shows as a changed golden file."""

from typing import Any

import msgspec
import pytest
from tests.contracts import examples, make_golden, management

from modelyard.core.keys import KeyLogEntry
from modelyard.core.routes import SNAPSHOT_FORMAT, empty_snapshot

REGENERATE = "a contract changed; if that is meant, run: python tests/contracts/make_golden.py"


@pytest.mark.parametrize("name", sorted(make_golden.contents()))
def test_a_message_is_written_as_its_golden_file_says(name: str) -> None:
    assert make_golden.contents()[name] == (make_golden.FOLDER / name).read_bytes(), REGENERATE


def test_there_is_no_golden_file_without_a_message() -> None:
    assert {path.name for path in make_golden.FOLDER.iterdir()} == set(make_golden.contents())


@pytest.mark.parametrize("name", sorted(examples.MESSAGES))
def test_a_golden_file_is_read_as_the_message(name: str) -> None:
    message = examples.MESSAGES[name]

    read = msgspec.json.decode(
        (make_golden.FOLDER / f"{name}.json").read_bytes(), type=type(message)
    )

    assert read == message


@pytest.mark.parametrize("name", sorted(management.MESSAGES))
def test_a_golden_file_is_read_as_the_management_message(name: str) -> None:
    message = management.MESSAGES[name]

    read = type(message).model_validate_json((make_golden.FOLDER / f"{name}.json").read_bytes())

    assert read == message


@pytest.mark.parametrize("name", sorted(examples.MESSAGES))
def test_an_example_gives_every_field_a_value_of_its_own(name: str) -> None:
    assert _left_at_default(examples.MESSAGES[name]) == set()


def _left_at_default(message: Any) -> set[str]:
    """Fields, as `Type.field`, that no instance of their type within `message` sets."""
    seen: dict[str, bool] = {}
    _look(message, seen)
    return {field for field, is_set in seen.items() if not is_set}


def _look(value: Any, seen: dict[str, bool]) -> None:
    if isinstance(value, msgspec.Struct):
        for field in msgspec.structs.fields(value):
            name = f"{type(value).__name__}.{field.name}"
            content = getattr(value, field.name)
            seen[name] = seen.get(name, False) or field.required or content != field.default
            _look(content, seen)
    elif isinstance(value, tuple | list):
        for item in value:
            _look(item, seen)


@pytest.mark.parametrize("kind", ["tenant_put", "key_put", "key_revoked", "tenant_dropped"])
def test_a_key_log_entry_is_known_by_its_tag(kind: str) -> None:
    raw = (make_golden.FOLDER / f"key_log.{kind}.json").read_bytes()

    entry = msgspec.json.decode(raw, type=KeyLogEntry)

    assert entry == examples.MESSAGES[f"key_log.{kind}"]


@pytest.mark.parametrize(
    "name",
    ["feed_update", "route_snapshot", "gateway_report", "record_batch", "record_receipt"],
)
def test_a_field_of_a_newer_version_is_passed_over(name: str) -> None:
    """A controller and a gateway of two versions work together while one is replaced."""
    message = examples.MESSAGES[name]
    newer = msgspec.json.decode((make_golden.FOLDER / f"{name}.json").read_bytes())
    newer["field_of_a_newer_version"] = {"any": ["thing"]}

    read = msgspec.json.decode(msgspec.json.encode(newer), type=type(message))

    assert read == message


def test_a_field_of_a_newer_key_log_entry_is_passed_over() -> None:
    newer = msgspec.json.decode((make_golden.FOLDER / "key_log.key_put.json").read_bytes())
    newer["field_of_a_newer_version"] = 1

    read = msgspec.json.decode(msgspec.json.encode(newer), type=KeyLogEntry)

    assert read == examples.MESSAGES["key_log.key_put"]


def test_the_first_snapshot_of_a_controller_is_older_than_any_published() -> None:
    first = empty_snapshot("an epoch")

    assert (first.version, first.models, first.format) == (0, (), SNAPSHOT_FORMAT)
