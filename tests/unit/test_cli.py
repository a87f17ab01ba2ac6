import json
import signal
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from infaas_ray.cli import main
from infaas_ray.cli.command import interrupted

COMMANDS = {name: x.load() for name, x in main.commands.items()}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(x) for x in arguments])


def test_every_command_takes_json_and_a_home() -> None:
    for name, command in COMMANDS.items():
        options = {x.name for x in command.params}
        assert {"as_json", "home", "config"} <= options, name


def test_help_lists_every_command_as_it_describes_itself() -> None:
    listed = " ".join(run("--help").output.split())
    for name, command in COMMANDS.items():
        summary = main.commands[name].short_help
        assert f" {name} {summary}" in listed
        assert command.name == name
        assert " ".join(str(command.help).split()).startswith(str(summary).rstrip("."))


def test_nothing_registered_says_how_to_begin(tmp_path: Path) -> None:
    assert "infaas register" in run("list", "--home", tmp_path).output
    assert json.loads(run("list", "--home", tmp_path, "--json").output) == []


@pytest.mark.parametrize("command", ["status"])
def test_no_system_is_told_with_what_to_do(tmp_path: Path, command: str) -> None:
    found = run(command, "--home", tmp_path, "--json")
    assert found.exit_code == 1
    error = json.loads(found.output)
    assert error["status"] == 503
    assert "infaas up" in error["error"]


def test_down_without_a_system_is_no_error(tmp_path: Path) -> None:
    found = run("down", "--home", tmp_path, "--json")
    assert (found.exit_code, json.loads(found.output)) == (0, {"ended": False})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--input", "x"], "NAME=FILE.npy"),
        (["--input", "x=/nowhere.npy"], "cannot read"),
        ([], "give the inputs"),
    ],
)
def test_inputs_that_cannot_be_read_are_told(tmp_path: Path, arguments: list[str], says: str) -> None:
    found = run("query", "target", "--home", tmp_path, "--json", *arguments)
    assert found.exit_code == 1
    assert says in json.loads(found.output)["error"]


def test_brackets_in_a_message_are_printed_as_they_are(tmp_path: Path) -> None:
    found = run("query", "target", "--home", tmp_path, "--inputs", "/nowhere/[onnx]/[/onnx].npz")
    assert "'/nowhere/[onnx]/[/onnx].npz'" in found.output


def test_a_picture_of_no_known_kind_is_refused_before_any_work(tmp_path: Path) -> None:
    options = ["--name", "a", "--task", "t", "--dataset", "d", "--declared-accuracy", "0.5", "--picture", "a.bmp"]
    found = run("register", tmp_path / "no.onnx", *options, "--home", tmp_path, "--json")
    assert ".png" in json.loads(found.output)["error"]


def test_a_pickled_input_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    found = run("query", "target", "--home", tmp_path, "--json", "--input", f"x={file}")
    assert "cannot read" in json.loads(found.output)["error"]


def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    options = ["--name", "a", "--task", "t", "--dataset", "d", "--declared-accuracy", "0.5"]
    found = run("register", tmp_path / "no.onnx", *options, "--home", tmp_path, "--json")
    assert found.exit_code == 1
    error = json.loads(found.output)
    assert error["status"] == 400
    assert "no.onnx" in error["error"]


def test_a_second_sigterm_does_not_interrupt_the_tidying_up() -> None:
    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
