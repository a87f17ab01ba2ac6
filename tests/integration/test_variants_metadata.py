"""Several processes on one SQLite file: none fails, no change is lost."""

import subprocess
import sys
from pathlib import Path

from infaas_ray.storage.metadata import Metadata

WRITER = """
import sys
from infaas_ray.storage.metadata import Metadata
url, who = sys.argv[1:]
metadata = Metadata(url)
for i in range(25):
    metadata.record_failure(who, f"label-{i}", "because")
    metadata.revision()
metadata.close()
"""


def test_writers_in_several_processes_take_turns(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"  # made by whichever process comes first
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, url, f"writer-{i}"]) for i in range(4)]
    assert [x.wait(timeout=60) for x in writers] == [0, 0, 0, 0]
    metadata = Metadata(url)
    assert metadata.revision() == 100
    assert len(metadata.failures()) == 100
    metadata.close()
