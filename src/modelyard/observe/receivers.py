"""Addresses and secrets of receivers, read once from the environment or from files."""

import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from modelyard.core.alerting import refused
from modelyard.core.receivers import WebhookWish, check_url
from modelyard.core.webhooks import Receiver, secret_bytes


def open_receivers(
    wishes: Iterable[WebhookWish], folder: Path, environment: Mapping[str, str]
) -> tuple[Receiver, ...]:
    """The receivers with what they keep secret; a relative path begins at `folder`.

    Raises InvalidConfig that names what is missing, and never what was read.
    """
    return tuple(_receiver(wish, folder, environment) for wish in wishes)


def _receiver(wish: WebhookWish, folder: Path, environment: Mapping[str, str]) -> Receiver:
    where = f"alerts.webhooks.{wish.name}"
    url = wish.url or _read(where, "url", wish.url_env, wish.url_file, folder, environment)
    check_url(url, where)
    secret = b""
    if wish.secret_env is not None or wish.secret_file is not None:
        text = _read(where, "secret", wish.secret_env, wish.secret_file, folder, environment)
        try:
            secret = secret_bytes(text)
        except ValueError as error:
            key = "secret_env" if wish.secret_env is not None else "secret_file"
            step = "make one with: openssl rand -hex 32"
            raise refused(where, key, f"not a secret: {error}", step) from None
    return Receiver(
        name=wish.name,
        url=url,
        secret=secret,
        format=wish.format,
        severities=wish.severities,
        timeout_s=wish.timeout_s,
        give_up_s=wish.give_up_s,
    )


def _read(
    where: str,
    what: str,
    variable: str | None,
    file: str | None,
    folder: Path,
    environment: Mapping[str, str],
) -> str:
    if variable is not None:
        text = environment.get(variable, "").strip()
        if not text:
            why = f"the environment has no {variable}"
            raise refused(
                where, f"{what}_env", why, "set it for the process that runs modelyard up"
            )
        return text
    path = folder / Path(file or "").expanduser()
    try:
        mode = path.stat().st_mode
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = f"{path} can't be read: {getattr(error, 'strerror', None) or 'not text'}"
        raise refused(where, f"{what}_file", why, "see that it is there") from None
    if stat.S_IMODE(mode) & 0o077:
        why = f"others may read {path}"
        raise refused(where, f"{what}_file", why, f"chmod 600 {path}")
    if not text:
        raise refused(where, f"{what}_file", f"{path} is empty", f"write the {what} into it")
    return text
