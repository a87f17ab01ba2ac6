"""`infaas events`, `replay` and `cost`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infaas_ray.cli import main
from infaas_ray.policy.autoscaler import ScalingSettings
from infaas_ray.policy.replay import encode_header, encode_turn
from infaas_ray.storage.metadata import Metadata
from infaas_ray.storage.usage import Peak, Share, Usage, record_usage
from tests.unit.policy.builders import catalog, offer, v
from tests.unit.policy.world import World

SETTINGS = ScalingSettings(strategy="individual", start_overhead_s=0.0)
UNIX_S = 1_700_000_000.0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the decision log of five seconds in which a variant is wanted."""
    world = World(offer("a"), settings=SETTINGS)
    world.steady({v("a"): 300}, 5)
    lines = [encode_header(SETTINGS, UNIX_S), *(encode_turn(*turn) for turn in world.log)]
    (tmp_path / "decisions.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return tmp_path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(x) for x in arguments])


def test_events_tell_what_was_done_when_and_why(home: Path) -> None:
    found = run("events", "--home", home)
    assert found.exit_code == 0
    assert "22:13:22.000  StartReplica a@onnx-fp32-cpu-t1-b8#1 (wanted by" in found.output
    assert "WorkerJoined: worker w1" in found.output


def test_events_for_machines(home: Path) -> None:
    rows = [json.loads(x) for x in run("events", "--home", home, "--json", "--last", "1").output.splitlines()]
    assert [x["type"] for x in rows] == ["StartReplica"]
    assert rows[0]["unix_s"] > UNIX_S
    assert rows[0]["because"] in rows[0]["words"]


def test_a_line_that_is_being_written_is_left_for_later(home: Path) -> None:
    log = home / "decisions.jsonl"
    whole = run("events", "--home", home).output
    log.write_bytes(log.read_bytes() + b'{"type":"LoggedTu')
    assert run("events", "--home", home).output == whole


def test_events_without_a_system(tmp_path: Path) -> None:
    found = run("events", "--home", tmp_path)
    assert found.exit_code == 1
    assert "infaas up" in found.output


def test_replay_says_whether_this_version_decides_the_same(home: Path) -> None:
    log = home / "decisions.jsonl"
    assert run("replay", log).exit_code == 0
    log.write_bytes(log.read_bytes().replace(b'"because":"wanted', b'"because":"longed'))
    found = run("replay", log, "--json")
    assert found.exit_code == 1
    assert "line 3" in json.loads(found.output)["difference"]


def test_replay_leaves_out_a_last_line_that_is_cut(home: Path) -> None:
    log = home / "decisions.jsonl"
    whole = log.read_bytes()
    assert json.loads(run("replay", log, "--json").output)["cut_line"] is None
    log.write_bytes(whole + b'{"type":"LoggedTu')
    number = whole.count(b"\n") + 1
    found = run("replay", log)
    assert found.exit_code == 0
    assert f"line {number}, the last one, is cut and was left out" in found.output
    assert json.loads(run("replay", log, "--json").output)["cut_line"] == number
    log.write_bytes(whole + b'{"type":"LoggedTu\n')
    assert f"line {number} of the decision log cannot be read" in run("replay", log).output


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"type":"Hea'])
def test_replay_of_a_log_without_a_whole_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log").write_bytes(content)
    found = run("replay", tmp_path / "log")
    assert found.exit_code == 1
    assert "the decision log is empty" in found.output


def test_replay_of_what_is_no_log(tmp_path: Path) -> None:
    assert run("replay", tmp_path / "none").exit_code == 1
    (tmp_path / "text").write_text("hello\n")
    found = run("replay", tmp_path / "text")
    assert found.exit_code == 1
    assert "line 1" in found.output


def test_cost_by_use_case_beside_the_most_accurate_variant_fixed(tmp_path: Path) -> None:
    metadata = Metadata(f"sqlite:///{tmp_path / 'metadata.db'}")
    offers = [offer("small", accuracy=0.8), offer("large", accuracy=0.9, rate_qps=10)]
    for architecture in catalog(*offers).architectures.values():
        metadata.add_architecture(architecture)
    for x in offers:
        metadata.put_variant(x.variant, x.profile)
    name, hour = "classification:digits", "2026-11-25T10"
    spent = [
        Usage(hour=hour, use_case=name, variant=offers[0].name, worker_type="local", usd=0.5, rows=2000),
        Usage(hour=hour, use_case="", variant="(idle)", worker_type="local", usd=0.25),
    ]
    record_usage(metadata, spent, [Peak(hour=hour, use_case=name, peak_qps=100.0, seconds=3600.0)])
    metadata.close()
    found = json.loads(run("cost", "--home", tmp_path, "--json").output)
    assert found["usd"] == 0.75
    assert found["by"] == [
        {"name": name, "usd": 0.5, "rows": 2000, "fixed_usd": found["fixed"][0]["usd"]},
        {"name": "(idle)", "usd": 0.25, "rows": 0, "fixed_usd": None},
    ]
    assert found["fixed"][0]["variant"] == offers[1].name
    assert found["fixed"][0]["replicas"] == 11
    assert "0.25 " in run("cost", "--home", tmp_path).output.replace("0.250000", "0.25 ")
    assert json.loads(run("cost", "--home", tmp_path, "--json", "--since", "2027").output)["usd"] == 0


def test_cost_by_application(tmp_path: Path) -> None:
    metadata = Metadata(f"sqlite:///{tmp_path / 'metadata.db'}")
    one = offer("a")
    metadata.add_architecture(next(iter(catalog(one).architectures.values())))
    metadata.put_variant(one.variant, one.profile)
    name = "classification:digits"
    of = {"use_case": name, "variant": one.name}
    usage = [
        Usage(hour="2026-11-25T10", worker_type="local", usd=1.0, rows=1000, **of),
        Usage(hour="2026-11-25T11", worker_type="local", usd=0.5, rows=100, **of),
        Usage(hour="2026-11-25T12", worker_type="local", usd=0.125, **of),
        Usage(hour="2026-11-25T12", use_case="", variant="(idle)", worker_type="local", usd=0.25),
    ]
    shares = [
        Share(hour="2026-11-25T10", application="shop", rows=700, **of),
        Share(hour="2026-11-25T10", application="blog", rows=200, **of),
        Share(hour="2026-11-25T11", application="shop", rows=100, **of),
    ]
    record_usage(metadata, usage, [Peak(hour="2026-11-25T10", use_case=name, peak_qps=100.0, seconds=3600.0)], shares)
    metadata.close()
    found = json.loads(run("cost", "--home", tmp_path, "--by", "application", "--json").output)
    rows = {x["name"]: (pytest.approx(x["usd"]), x["rows"]) for x in found["by"]}
    assert rows == {
        "shop": (1.2, 800),
        "blog": (0.2, 200),
        "(unnamed)": (0.1, 100),
        "(unused)": (0.125, 0),
        "(idle)": (0.25, 0),
    }
    assert sum(x["usd"] for x in found["by"]) == pytest.approx(found["usd"])
    instead = {x["name"]: x["fixed_usd"] for x in found["by"]}
    assert instead["shop"] == pytest.approx(found["fixed"][0]["usd"] * 800 / 1100)
    assert instead["(idle)"] is None
    assert "shop" in run("cost", "--home", tmp_path, "--by", "application").output


def test_cost_of_nothing(tmp_path: Path) -> None:
    found = run("cost", "--home", tmp_path)
    assert found.exit_code == 0
    assert "nothing was spent yet" in found.output
