"""Receivers of alerts as the configuration names them; secrets are read elsewhere."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from modelyard.core.alerting import Severity, check_config_name, read_table, refused
from modelyard.core.webhooks import Format

_Patience = Annotated[float, Meta(gt=0, le=7 * 86_400)]


class WebhookWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One webhook. Its URL stands here, in a variable or in a file; its secret never here."""

    name: str
    url: str | None = None
    url_env: str | None = None
    url_file: str | None = None
    secret_env: str | None = None
    secret_file: str | None = None
    format: Format = "json"
    severities: tuple[Severity, ...] = ("page", "ticket")
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 10.0
    give_up_s: _Patience = 6 * 3600.0

    def __repr__(self) -> str:
        return f"WebhookWish({self.name})"


def read_webhooks(given: Mapping[str, Mapping[str, Any] | None]) -> tuple[WebhookWish, ...]:
    """The webhooks, by name; InvalidConfig names the webhook, the key and what to do."""
    return tuple(_webhook(name, raw) for name, raw in given.items() if raw is not None)


def _webhook(name: str, raw: Mapping[str, Any]) -> WebhookWish:
    where = f"alerts.webhooks.{name}"
    check_config_name(name, where)
    if "secret" in raw:
        step = "name a file that only you can read with secret_file, or a variable with secret_env"
        raise refused(where, "secret", "secrets don't stand in the configuration", step)
    wish = read_table(WebhookWish, name, raw, where, {})
    addresses = [each for each in (wish.url, wish.url_env, wish.url_file) if each is not None]
    if len(addresses) != 1:
        step = "write one of url, url_env, url_file"
        raise refused(where, "url", f"there are {len(addresses)} addresses", step)
    if wish.url is not None:
        check_url(wish.url, where)
    secrets = [each for each in (wish.secret_env, wish.secret_file) if each is not None]
    if len(secrets) > 1:
        raise refused(where, "secret_env", "secret_file is given as well", "leave one of them out")
    if wish.format == "json" and not secrets:
        step = (
            "make one with: (umask 077; openssl rand -hex 32 > FILE), and write secret_file: FILE"
        )
        raise refused(where, "secret_file", "messages need a secret to be signed with", step)
    return wish


_URL = re.compile(
    r"https?://(?:[^\s/?#@]+@)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?(?:[/?#][!-~]*)?"
)


def check_url(url: str, where: str) -> None:
    """Raise InvalidConfig, which does not show the URL, for what is no address of a web server."""
    found = _URL.fullmatch(url)
    if found is None or int(found[1] or 0) > 65535:
        raise refused(
            where, "url", "not a URL", "write https://HOST/PATH, or http://HOST:PORT/PATH"
        )
