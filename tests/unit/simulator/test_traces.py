"""Readers of public trace formats, on small samples; cutting, cleaning, scaling."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from infaas_ray.errors import InvalidInput
from infaas_ray.simulator.arrivals import Poisson, arrival_times
from infaas_ray.simulator.traces import Trace, counted, read_azure, read_counts, read_queries, thinned


def trace(*qps: float, step_s: float = 1.0) -> Trace:
    return Trace(qps=np.asarray(qps, dtype=float), step_s=step_s)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_one_count_a_line_plain_and_compressed(tmp_path: Path) -> None:
    found = read_counts(write(tmp_path / "a.txt", "3\n0\n\n 7 \n"))
    assert (found.qps.tolist(), found.step_s, found.duration_s) == ([3, 0, 7], 1.0, 3.0)
    packed = tmp_path / "a.txt.gz"
    packed.write_bytes(gzip.compress(b"120\n60\n"))
    assert read_counts(packed, step_s=60).qps.tolist() == [2, 1]


AZURE = "HashOwner,HashApp,HashFunction,Trigger,1,2,3\n"


def test_azure_functions_over_days(tmp_path: Path) -> None:
    first = write(tmp_path / "d01.csv", AZURE + "o,a,f1,http,60,0,120\no,a,f2,timer,1,1,1\no,a,f3,queue,6,0,\n")
    second = write(tmp_path / "d02.csv", AZURE + "o,a,f2,timer,600,0,0\no,a,f4,http,1,1,1\n")
    found = read_azure([first, second], most=2)
    assert list(found) == ["f2", "f1"]
    assert found["f1"].qps.tolist() == [1, 0, 2, 0, 0, 0]
    assert (found["f2"].qps * 60).tolist() == [1, 1, 1, 600, 0, 0]
    assert found["f1"].step_s == 60


def test_one_row_a_query(tmp_path: Path) -> None:
    file = write(tmp_path / "q.csv", "id,at\na,1500\nb,1000\nc,4000\n")
    assert read_queries(file, "at", "ms").tolist() == [0, 0.5, 3.0]
    dates = write(tmp_path / "d.csv", "at\n2024-05-12 10:00:00\n2024-05-12 10:00:02.500\n")
    assert read_queries(dates, "at", "iso").tolist() == [0, 2.5]
    assert counted(np.asarray([0, 0.5, 3.0])).qps.tolist() == [2, 0, 0, 1]


@pytest.mark.parametrize(
    ("read", "text", "says"),
    [
        (read_counts, "1\nx\n", "line 2: 'x' is not a count"),
        (read_counts, "", "holds no counts"),
        (lambda p: read_azure([p]), "a,b\n", "does not begin with the columns"),
        (lambda p: read_azure([p]), AZURE + "o,a,f,http,1\n", "line 2: 5 columns instead of 7"),
        (lambda p: read_azure([p]), AZURE, "holds no functions"),
        (lambda p: read_queries(p, "at"), "a,b\n1,2\n", "has no column 'at'; it has a, b"),
        (lambda p: read_queries(p, "at"), "at\nsoon\n", "line 2: 'soon' is not a time in s"),
        (lambda p: read_queries(p, "at"), "at\n", "holds no queries"),
        (lambda p: read_queries(p, "at"), "at\nnan\n", "line 2: 'nan' is not a time in s"),
        (lambda p: read_queries(p, "at"), f"at\n{'1' * 200_000}\n", "field larger than field limit"),
        (read_counts, "1e308\n", "is not a count"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, read: object, text: str, says: str) -> None:
    file = write(tmp_path / "file.csv", text)
    with pytest.raises(InvalidInput, match=r"file\.csv") as found:
        read(file)  # type: ignore[operator]
    assert says in str(found.value)
    with pytest.raises(InvalidInput, match="cannot read"):
        read_counts(tmp_path / "absent")


def test_files_that_are_broken_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    packed = gzip.compress(b"1\n2\n" * 100)
    (tmp_path / "broken.txt.gz").write_bytes(packed[:20] + b"broken" + packed[26:])
    for name in ("latin.txt", "broken.txt.gz"):
        with pytest.raises(InvalidInput, match=f"cannot read .*{name}"):
            read_counts(tmp_path / name)


def test_the_mark_that_some_programs_begin_a_file_with_is_no_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "marked.csv"
    file.write_text("at\n1\n3\n", encoding="utf-8-sig")
    assert read_queries(file, "at").tolist() == [0, 2]


def test_dates_without_a_zone_are_those_of_greenwich(tmp_path: Path) -> None:
    file = write(tmp_path / "d.csv", "at\n2024-05-12 10:00:00\n2024-05-12T12:00:01+02:00\n")
    assert read_queries(file, "at", "iso").tolist() == [0, 1]


def test_a_unit_that_makes_a_trace_absurdly_long_is_told() -> None:
    with pytest.raises(InvalidInput, match="is the unit right"):
        counted(np.asarray([0.0, 3e9]))


def test_gaps_of_the_recorder_are_cut_or_bridged_and_quiet_seconds_stay() -> None:
    holes = trace(4, 0, 2, 0, 0, 0, 8)
    assert holes.without_gaps(3).qps.tolist() == [4, 0, 2, 8]
    assert holes.without_gaps(3, "bridge").qps.tolist() == [4, 0, 2, 3.5, 5, 6.5, 8]
    assert holes.without_gaps(10).qps.tolist() == holes.qps.tolist()
    with pytest.raises(InvalidInput, match="one gap"):
        trace(0, 0).without_gaps(1)


def test_scaling_thinning_windows_and_speed() -> None:
    whole = trace(1, 2, 3, 6)
    assert whole.scaled(mean_qps=6).qps.tolist() == [2, 4, 6, 12]
    assert whole.scaled(peak_qps=3).qps.tolist() == [0.5, 1, 1.5, 3]
    assert whole.thinned(0.5).mean_qps == 1.5
    assert whole.window(1, 3).qps.tolist() == [2, 3]
    assert whole.smoothed(2).qps.tolist() == [1.5, 4.5]
    assert whole.faster(4).duration_s == 1
    with pytest.raises(InvalidInput, match="nothing from 5"):
        whole.window(5, 6)
    with pytest.raises(InvalidInput, match="to a mean or to a peak"):
        whole.scaled()
    with pytest.raises(InvalidInput):
        trace(-1)


def test_arrivals_are_drawn_inside_the_steps_of_a_trace() -> None:
    rng = np.random.default_rng(3)
    times = np.concatenate(list(arrival_times(trace(100, 0, 400, step_s=60), Poisson(), rng)))
    assert np.histogram(times, bins=3, range=(0, 180))[0] == pytest.approx([6000, 0, 24_000], rel=0.04)
    assert len(thinned(times, 0.25, rng)) == pytest.approx(len(times) / 4, rel=0.05)
