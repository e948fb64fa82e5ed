import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import InvalidRequest
from modelyard.core.refs import Ref, check_alias, check_name, is_digest, parse_ref

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m", Ref("m")),
        ("m:3", Ref("m", version=3)),
        ("my-model.v2@production", Ref("my-model.v2", alias="production")),
        (f"m@{DIGEST}", Ref("m", digest=DIGEST)),
    ],
)
def test_the_four_forms_are_read_and_written_alike(text: str, expected: Ref) -> None:
    assert parse_ref(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    ["", ":3", "m:", "m:0", "m:-1", "m:1.5", "m:x", "m@", "m@3", "m@v3", "m@latest", "../m", "a/b",
     "m@sha256:12", "m:3@x", ".m", "m.", "m\n", "m" * 129],
)  # fmt: skip
def test_what_is_no_reference_is_refused_with_the_next_step(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_ref(text)
    assert refused.value.next_step


@given(st.text(max_size=30))
def test_a_name_that_is_allowed_is_safe_as_a_file_name(text: str) -> None:
    try:
        name = check_name(text)
    except InvalidRequest:
        return
    assert name == text
    assert name.isascii()
    assert not {"/", "\\", "\0", ":", "@"} & set(name)
    assert not name.startswith(".")


def test_an_alias_does_not_look_like_a_version() -> None:
    assert check_alias("champion") == "champion"
    for alias in ("1", "v12", "Latest"):
        with pytest.raises(InvalidRequest):
            check_alias(alias)


def test_a_digest_is_lower_case_and_whole() -> None:
    assert is_digest(DIGEST)
    assert not is_digest(DIGEST.upper())
    assert not is_digest(DIGEST[:-1])
