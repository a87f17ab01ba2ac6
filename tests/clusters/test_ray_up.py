"""`ray up` with the cluster file for EC2, against a mock server; the story is in `ray_up/inside.py`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

INSIDE = Path(__file__).parent / "ray_up" / "inside.py"
LIMIT_S = 580


@pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(x) for x in ("ip", "rsync", "unshare")),
    reason="a network of its own needs root, iproute2, rsync and util-linux",
)
def test_a_cluster_comes_up_gets_a_machine_of_each_kind_places_replicas_and_goes() -> None:
    folder = tempfile.mkdtemp(prefix="ifsu-")  # short: the names of Ray's sockets have at most 107 bytes
    spaces = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    root = INSIDE.parents[3]
    try:
        found = subprocess.run(
            [*spaces, sys.executable, str(INSIDE), folder],
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-8000:]
        seen = json.loads(found.stdout.splitlines()[-1])
        print(seen)  # how long each part took, for those who ask pytest with -rP
        kinds = {name: worker_type.removesuffix("-spot") for name, worker_type in seen["placed"].items()}
        assert kinds == {"on-cpu": "cpu", "on-gpu": "gpu", "on-neuron": "neuron"}
        assert set(seen["machines"].values()) == {1}
        queries = seen["queries"]
        assert queries["answered"] > 0
        assert queries["accepted"] == sum(queries[x] for x in queries if x != "accepted")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
