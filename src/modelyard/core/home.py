"""Where everything of one Modelyard installation lies. Path arithmetic only: nothing is touched.

HOME/
  config.yaml                 settings (optional)
  secrets/{admin,gateway,metrics}.token   mode 0600
  blobs/sha256/ab/abcd…       file contents by SHA-256, read-only
  manifests/abcd….json        canonical manifests by digest
  signatures/abcd…/KEY.json   signatures of a manifest's files, by key
  downloads/                  what is being fetched from a hub
  versions/NAME/3.json        which manifest a version number names
  quarantine/abcd….json       blobs found damaged, and why
  pins/HOLDER.json            versions in use by a controller
  registry.lock               held by who adds or reads bytes, alone by who removes them
  aliases.jsonl               alias journal, append-only
  forms/abcd….gguf.json       provenance of derived forms
  trees/abcd…/                materialised versions
  catalogue.db                MLflow's SQLite
  state.db                    controller's state
  gateway/{snapshot.json,spool/}
  run/                        locks and records of what runs
  logs/                       one file per process
"""

from pathlib import Path

import msgspec


class Home(msgspec.Struct, frozen=True):
    """Paths under one root."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def admin_token(self) -> Path:
        return self.root / "secrets" / "admin.token"

    @property
    def gateway_token(self) -> Path:
        return self.root / "secrets" / "gateway.token"

    @property
    def metrics_token(self) -> Path:
        return self.root / "secrets" / "metrics.token"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def manifests(self) -> Path:
        return self.root / "manifests"

    @property
    def signatures(self) -> Path:
        return self.root / "signatures"

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    @property
    def versions(self) -> Path:
        return self.root / "versions"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def pins(self) -> Path:
        return self.root / "pins"

    @property
    def registry_lock(self) -> Path:
        return self.root / "registry.lock"

    @property
    def alias_journal(self) -> Path:
        return self.root / "aliases.jsonl"

    @property
    def forms(self) -> Path:
        return self.root / "forms"

    @property
    def trees(self) -> Path:
        return self.root / "trees"

    @property
    def catalogue(self) -> Path:
        return self.root / "catalogue.db"

    @property
    def state(self) -> Path:
        return self.root / "state.db"

    @property
    def gateway(self) -> Path:
        return self.root / "gateway"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"
