"""Homes and their descriptions of what runs: broken, stale, taken, shared."""

import socket
import threading
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from infaas_ray.config import Settings, load_settings
from infaas_ray.errors import ConfigError, NotRunning, Unavailable
from infaas_ray.serving import launch
from infaas_ray.serving.head import Run, _of_cluster, joined, only_one, read_run, write_run


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return load_settings(flags={"home": tmp_path}, environment={})


def test_a_second_up_finds_the_system_that_runs(settings: Settings) -> None:
    steps: list[str] = []
    assert launch.up(settings, steps.append) == read_run(settings)
    assert steps == [f"already running at http://127.0.0.1:{settings.http.port}"]


def test_a_cluster_that_others_run_is_looked_at_before_it_is_believed(settings: Settings) -> None:
    run = read_run(settings)
    assert run is not None
    assert launch._lives(msgspec.structs.replace(run, head_pid=0))
    assert not launch._lives(msgspec.structs.replace(run, head_pid=0, namespace="nobody"))
    assert not launch._lives(Run(address="127.0.0.1:1", url="u", namespace="n"))


def test_a_taken_port_is_told_before_anything_starts(home: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = home.model_copy(update={"http": home.http.model_copy(update={"port": port})})
        with pytest.raises(Unavailable, match="--port"):
            launch.up(busy)
    assert read_run(home) is None


def test_a_broken_description_is_told(home: Settings) -> None:
    home.run_file.write_text('{"address": ')
    with pytest.raises(ConfigError, match="cannot be read"):
        read_run(home)


def test_a_system_whose_head_is_gone_is_forgotten_with_its_folder(home: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "ifs-gone"
    folder.mkdir()
    write_run(home, Run(address="127.0.0.1:1", url="u", namespace="n", head_pid=2**22 + 5, folder=str(folder)))
    assert home.run_file.stat().st_mode & 0o777 == 0o600
    assert read_run(home) is None
    assert not home.run_file.exists()
    assert not folder.exists()


def test_a_cluster_that_does_not_answer_is_told_at_once(home: Settings) -> None:
    run = Run(address="127.0.0.1:1", url="u", namespace="n")
    with pytest.raises(NotRunning, match="no Ray cluster answers"), joined(msgspec.structs.replace(run)):
        pass


@pytest.mark.parametrize("folder", ["", "/", "/tmp", "python"])
def test_no_other_process_is_ever_taken_for_the_clusters(folder: str) -> None:
    assert psutil.process_iter()
    assert _of_cluster(folder) == []


def test_only_one_process_brings_a_home_up(home: Settings) -> None:
    order: list[str] = []

    def second() -> None:
        with only_one(home):
            order.append("second")

    with only_one(home):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.2)
        order.append("first")
    other.join()
    assert order == ["first", "second"]
