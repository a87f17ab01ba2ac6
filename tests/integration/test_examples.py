"""What the README and the notebook show runs as printed: commands, programs, and a request by curl.

The system under test has two of the demonstration's networks, really trained and registered. Replaced are only the
port, because 8000 may be taken, and `.venv/bin/infaas`, which is the `infaas` of whichever environment runs this.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import infaas_ray
from infaas_ray.config import load_settings
from infaas_ray.demo import models
from infaas_ray.serving import launch
from infaas_ray.variants.generator import GenerationOptions
from tests.integration.conftest import free_port

for package in ("torch", "sklearn"):
    pytest.importorskip(package)

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
LIMIT_S = 120.0


def blocks(language: str) -> list[str]:
    """The blocks of the README in that language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [x for block in blocks("sh") for x in block.splitlines() if x.startswith(".venv/bin/infaas ")]
UP, *ASKED, DOWN = [x for x in COMMANDS if not re.search(r"infaas (plan|simulate|events|cost) ", x)]
LATER = [x for x in COMMANDS if x not in (UP, *ASKED, DOWN)]


class Desk(NamedTuple):
    """A folder that looks like a checkout in which the demonstration ran, and where its system listens."""

    folder: Path
    port: int

    def run(self, command: str, *, at: str = ".") -> str:
        """Run a line of shell as printed, and return what it says."""
        command = command.replace(".venv/bin/infaas", f"{sys.executable} -m infaas_ray.cli").replace(
            "8000", str(self.port)
        )
        environment = os.environ | {"INFAAS_HTTP__PORT": str(self.port), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder / at,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def python(self, code: str, *, at: str = ".") -> str:
        """Run a program as printed."""
        (self.folder / at / "example.py").write_text(code.replace("8000", str(self.port)))
        return self.run(f"{sys.executable} example.py", at=at)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "notebooks").mkdir()
    home = folder / ".infaas" / "demo"
    settings = load_settings(flags={"home": home}, environment={})
    (home / "models").mkdir(parents=True)
    validation = home / "models" / "digits.npz"
    models.make_once(validation, models._write_digits)
    for name in ("digits-mlp", "digits-cnn-wide"):
        models.make_once(home / "models" / f"{name}.pt2", models._digits_writer(name))
        infaas_ray.register(
            home / "models" / f"{name}.pt2",
            architecture=name,
            task="digit-classification",
            dataset="digits",
            validation=validation,
            options=GenerationOptions(threads=(1,), recipes=("torch-fp32",)),
            settings=settings,
        )
    made = Desk(folder, free_port())
    made.run(UP)
    yield made
    launch.down(settings)


def test_there_is_something_to_run() -> None:
    assert "infaas up" in UP
    assert "infaas down" in DOWN
    assert (len(ASKED), len(LATER)) == (2, 4)
    assert len(blocks("python")) == 2
    assert len(blocks("bash")) == 1


@pytest.mark.parametrize("command", [*ASKED, *LATER])
def test_commands_run_as_printed(desk: Desk, command: str) -> None:
    assert desk.run(f"{command} 2>&1").strip()


@pytest.mark.parametrize("code", blocks("python"))
def test_programs_run_as_printed(desk: Desk, code: str) -> None:
    desk.python(code)


def test_the_request_by_curl_is_answered(desk: Desk) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed here")
    [request] = blocks("bash")
    answer = json.loads(desk.run(request))
    assert answer["outputs"][0]["shape"] == [1, 10]


def test_the_notebook_runs(desk: Desk) -> None:
    cells = json.loads((ROOT / "notebooks" / "first_steps.ipynb").read_text())["cells"]
    code = "\n\n".join("".join(x["source"]) for x in cells if x["cell_type"] == "code")
    told = desk.python(code, at="notebooks")
    assert "asked 0.95: digits-mlp@" in told


def test_it_ends_as_printed(desk: Desk) -> None:
    desk.run(DOWN)
