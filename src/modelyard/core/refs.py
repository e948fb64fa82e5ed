"""References to model versions: `name`, `name@alias`, `name:3`, `name@sha256:…`."""

import re

import msgspec

from modelyard.core.errors import InvalidRequest

DIGEST_PREFIX = "sha256:"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
# What MLflow refuses as an alias, we refuse too: a version number, `v3`, `latest`.
_RESERVED_ALIAS = re.compile(r"(?i:v?[0-9]+|latest)")


class Ref(msgspec.Struct, frozen=True):
    """A parsed reference; at most one of `version`, `alias`, `digest` is set.

    None of them set means the newest version of `name`.
    """

    name: str
    version: int | None = None
    alias: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}:{self.version}"
        if self.alias is not None:
            return f"{self.name}@{self.alias}"
        if self.digest is not None:
            return f"{self.name}@{self.digest}"
        return self.name


def check_name(name: str) -> str:
    """Return `name`; raise InvalidRequest when it can't name a model or deployment."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"the name {name!r} is not allowed",
            next_step="use 1 to 128 letters, digits, '.', '_' or '-', "
            "beginning and ending with a letter or digit",
            param="name",
        )
    return name


def check_alias(alias: str) -> str:
    """Return `alias`; raise InvalidRequest when it can't be one, or looks like a version."""
    if not _NAME.fullmatch(alias) or _RESERVED_ALIAS.fullmatch(alias):
        raise InvalidRequest(
            f"the alias {alias!r} is not allowed",
            next_step="choose a word such as 'production'; numbers, 'v3' and 'latest' are reserved",
            param="alias",
        )
    return alias


def is_digest(text: str) -> bool:
    """Whether `text` is `sha256:` and 64 lower-case hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


def parse_ref(text: str) -> Ref:
    """Parse a reference; raise InvalidRequest with the four forms when it is none of them."""
    name, at, suffix = text.partition("@")
    if at:
        check_name(name)
        if suffix.startswith(DIGEST_PREFIX):
            if not is_digest(suffix):
                raise InvalidRequest(
                    f"{suffix!r} in {text!r} is not a digest",
                    next_step="a digest is 'sha256:' and 64 lower-case hexadecimal digits",
                    param="ref",
                )
            return Ref(name, digest=suffix)
        return Ref(name, alias=check_alias(suffix))
    name, colon, version = text.partition(":")
    check_name(name)
    if not colon:
        return Ref(name)
    if not _VERSION.fullmatch(version):
        raise InvalidRequest(
            f"{version!r} in {text!r} is not a version number",
            next_step="write name, name:3, name@alias or name@sha256:…",
            param="ref",
        )
    return Ref(name, version=int(version))
