"""The backup of docs/state.md, by its own commands."""

import os
import subprocess
from pathlib import Path

from tests.documents import ROOT, blocks
from tests.postgres import PostgresServer
from tests.services import postgresql_programs
from tests.state.conftest import ON_POSTGRESQL
from tests.state.test_store import DEPLOYMENT, record

from modelyard.state.store import Store

GUIDE = ROOT / "docs" / "state.md"


@ON_POSTGRESQL
def test_a_backup_is_made_under_a_controller_and_restored(
    server: PostgresServer, database: str, tmp_path: Path
) -> None:
    url = server.url(database)
    dump, restore = (block.body for block in blocks(GUIDE.read_text()) if block.mark == "")
    environment = {
        "PATH": f"{postgresql_programs()}:{os.environ['PATH']}",
        "MODELYARD_STATE__URL": url,
    }

    def run(command: str) -> None:
        bash = ["bash", "-euo", "pipefail", "-c", command]
        subprocess.run(bash, check=True, cwd=tmp_path, env=environment)

    store = Store(url, sole=True)
    epoch = store.meta.epoch()
    store.deployments.change("chat", lambda _: DEPLOYMENT)
    store.records.add([record(1)])
    run(dump)
    store.deployments.change("chat", lambda _: None)
    store.records.add([record(2)])
    store.close()
    run(restore)

    again = Store(url, sole=True)
    try:
        assert again.meta.epoch() == epoch
        assert again.deployments.all() == [DEPLOYMENT]
        assert [each.request_id for each in again.records.newest(9)] == ["q1"]
        assert again.records.add([record(1), record(3)]) == (record(3),)
    finally:
        again.close()
