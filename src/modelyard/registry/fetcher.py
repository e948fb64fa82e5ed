"""Registering what lies on a hub: fetched, taken in without a second copy, with its commit."""

from pathlib import Path

import msgspec

from modelyard.core.refs import check_name
from modelyard.registry.hub import Hub
from modelyard.registry.origin import Origin
from modelyard.registry.progress import Progress
from modelyard.registry.registration import Registrar, Registration

_SHOWN = 5


class Fetcher:
    """Puts a hub before a registrar."""

    def __init__(self, hub: Hub, registrar: Registrar, blobs: Path) -> None:
        self._hub = hub
        self._registrar = registrar
        self._blobs = blobs

    def register(
        self,
        name: str,
        address: str,
        progress: Progress | None,
        origin: Origin | None,
        tokenizer: Path | None,
    ) -> Registration:
        """See `Registry.register`."""
        check_name(name)
        with self._hub.fetched(address, progress) as fetched:
            registration = self._registrar.register(
                name,
                fetched.path,
                progress,
                origin=msgspec.structs.replace(
                    origin or Origin(), source=fetched.source, source_commit=fetched.commit
                ),
                link=tokenizer is None and self._on_one_disk(fetched.path),
                tokenizer=tokenizer,
            )
        if not fetched.left_out:
            return registration
        shown = ", ".join(fetched.left_out[:_SHOWN])
        more = len(fetched.left_out) - _SHOWN
        warning = f"not fetched, for no engine here reads them: {shown}" + (
            f" and {more} more" if more > 0 else ""
        )
        return msgspec.structs.replace(registration, warnings=(*registration.warnings, warning))

    def _on_one_disk(self, path: Path) -> bool:
        store = self._blobs if self._blobs.exists() else self._blobs.parent
        return path.stat().st_dev == store.stat().st_dev
