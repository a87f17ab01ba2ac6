"""Child processes: crashes and hangs become errors, results before them are kept, secrets stay outside."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infaas_ray.errors import ArtifactCorrupt, InvalidModel, MissingExtra
from infaas_ray.variants import jobs
from infaas_ray.variants.jobs import JobReport, run_job
from tests.integration.conftest import wait_for

CHILDREN = {
    "echo": "emit(job); emit(len(job))",
    "crash": "emit('before'); os.kill(os.getpid(), 11)",
    "leave": "emit('before'); os.write(2, b'out of patience'); os._exit(3)",
    "hang": "emit('before'); time.sleep(60)",
    "silent": "pass",
    "greedy": "held = b'x' * (400 << 20); time.sleep(30); emit(len(held))",
    "noisy": "print('x' * 100000); os.write(1, b'y' * 100000); emit('heard')",
    "ours": "raise MissingExtra('no torch', 'torch')",
    "theirs": "raise RuntimeError('tensor of the wrong size')",
    "orphan": "Path(job).write_text(str(os.getpid())); time.sleep(60)",
    "environment": "emit(dict(os.environ))",
}


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that children can run, besides the package."""
    monkeypatch.setattr(jobs, "_PACKAGE_PARENT", f"{tmp_path}:{jobs._PACKAGE_PARENT}")
    head = (
        "import os, sys, time\nfrom pathlib import Path\nfrom infaas_ray.errors import *\n"
        "from infaas_ray.variants.jobs import serve_job\n"
    )
    for name, line in CHILDREN.items():
        (tmp_path / f"child_{name}.py").write_text(f"{head}def work(job, emit):\n    {line}\nserve_job(str, work)\n")
    return tmp_path


def run(child: Path, name: str, limit_s: float = 30.0) -> JobReport:
    return run_job(f"child_{name}", "abc", what="trying", folder=child, threads=3, limit_s=limit_s)


def test_results_come_back_in_order(child: Path) -> None:
    report = run(child, "echo")
    assert report.results == (b'"abc"', b"3")
    assert report.last(int) == 3


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("crash", "trying failed: it was ended by SIGSEGV"),
        ("leave", "trying failed: it exited with status 3: out of patience"),
        ("hang", "trying failed: it exceeded its time limit of 5 s"),
    ],
)
def test_a_bad_end_is_an_error_and_keeps_what_came_before(child: Path, name: str, says: str) -> None:
    report = run(child, name, limit_s=5.0 if name == "hang" else 30.0)
    assert report.results == (b'"before"',)
    assert isinstance(report.failure, InvalidModel)
    assert says in report.failure.message
    with pytest.raises(InvalidModel):
        report.last(str)


def test_a_child_that_takes_too_much_memory_is_ended(child: Path) -> None:
    limit = 200 << 20
    report = run_job(
        "child_greedy", "abc", what="trying", folder=child, threads=1, limit_s=30.0, memory_limit_bytes=limit
    )
    assert isinstance(report.failure, InvalidModel)
    assert "trying failed: it exceeded its memory limit of 210 MB" in report.failure.message


def test_an_end_without_result_is_an_error(child: Path) -> None:
    with pytest.raises(InvalidModel, match="without a result"):
        run(child, "silent").last(str)


def test_what_a_framework_prints_disturbs_nothing(child: Path) -> None:
    assert run(child, "noisy").last(str) == "heard"


def test_errors_keep_their_class_and_data(child: Path) -> None:
    ours, theirs = run(child, "ours").failure, run(child, "theirs").failure
    assert isinstance(ours, MissingExtra)
    assert (ours.message, ours.extra) == ("no torch", "torch")
    assert isinstance(theirs, InvalidModel)
    assert theirs.message == "RuntimeError: tensor of the wrong size"
    assert not isinstance(theirs, ArtifactCorrupt)


def test_a_child_sees_its_threads_and_no_secret(child: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    seen = run(child, "environment").last(dict[str, str])
    assert "hush" not in seen.values()
    assert {seen["OMP_NUM_THREADS"], seen["MKL_NUM_THREADS"], seen["OPENBLAS_NUM_THREADS"]} == {"3"}
    assert seen["TMPDIR"] == str(child)


def test_a_child_finds_modules_where_its_parent_does_but_not_in_the_current_folder(
    child: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = str(jobs._PACKAGE_PARENT).split(os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ".", "relative", "/opt/wheels"]))
    seen = run(child, "environment").last(dict[str, str])
    assert seen["PYTHONPATH"].split(os.pathsep) == [*ours, "/opt/wheels"]


def test_importing_the_package_imports_no_framework() -> None:
    code = (
        "import sys, infaas_ray.variants.registration, infaas_ray.variants.profile_job, infaas_ray.variants.build_job;"
        "frameworks = 'torch onnx onnxruntime openvino nncf boto3 sklearn transformers ray'.split();"
        "assert not set(frameworks) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


PARENT = """
import sys
from pathlib import Path
from infaas_ray.variants import jobs
jobs._PACKAGE_PARENT = sys.argv[1]
jobs.run_job("child_orphan", sys.argv[2], what="trying", folder=Path(sys.argv[3]), threads=1, limit_s=60)
"""


def test_a_child_ends_with_its_parent(child: Path) -> None:
    told = child / "pid"
    command = [sys.executable, "-c", PARENT, str(jobs._PACKAGE_PARENT), str(told), str(child)]
    with subprocess.Popen(command) as parent:
        wait_for(lambda: told.exists() and told.read_text() != "")
        assert psutil.pid_exists(int(told.read_text()))
        parent.kill()
    wait_for(lambda: not psutil.pid_exists(int(told.read_text())))
