"""The load generator without sockets: what a connection makes of bytes, and how answers are counted."""

import pytest

from benchmarks.serving.load import Caller, Job, Run, Tally, times


class RunDouble:
    """Notes what a connection reports."""

    def __init__(self, requests: list[bytes]) -> None:
        self.job = Job(host="", port=1, requests=requests, connections=1, seconds=1.0)
        self.answers: list[tuple[int, bytes]] = []
        self.reason = ""

    def answered(self, caller: Caller, status: int, data: bytes, head: int) -> None:
        self.answers.append((status, data[head + 4 :]))

    def give_up(self, reason: str) -> None:
        self.reason = reason


class TransportDouble:
    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)


ANSWER = b'HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 8\r\nx-slo-met: true\r\n\r\n{"y": 1}'


def caller() -> tuple[Caller, RunDouble, TransportDouble]:
    run, transport = RunDouble([b"first", b"second"]), TransportDouble()
    made = Caller(run)  # type: ignore[arg-type]
    made.connection_made(transport)  # type: ignore[arg-type]
    return made, run, transport


def test_it_sends_the_request_of_the_kind_asked_for() -> None:
    made, _, transport = caller()
    made.ask(1, 0.0)
    assert transport.written == [b"second"]
    assert made.busy


@pytest.mark.parametrize("cut", range(1, len(ANSWER)))
def test_an_answer_is_read_wherever_it_is_cut(cut: int) -> None:
    made, run, _ = caller()
    made.ask(0, 0.0)
    made.data_received(ANSWER[:cut])
    assert run.answers == []
    made.data_received(ANSWER[cut:])
    assert run.answers == [(200, b'{"y": 1}')]
    assert not made.busy


def test_an_answer_without_length_ends_the_job_with_a_reason() -> None:
    made, run, _ = caller()
    made.ask(0, 0.0)
    made.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert "Content-Length" in run.reason


def tally_of(seconds: float, bounds_s: list[float]) -> Tally:
    job = Job(host="", port=1, requests=[b"a", b"b"], connections=1, seconds=seconds, bounds_s=bounds_s)
    return Tally(job, 0.0, seconds)


def test_answers_are_told_apart() -> None:
    met = b"HTTP/1.1 200 OK\r\nx-slo-met: true\r\n"
    tally = tally_of(2.0, [0.1, 0.5])
    tally.add(0, 200, 0.09, met)  # on time
    tally.add(0, 200, 0.11, met)  # late, though called on time
    tally.add(0, 200, 0.11)  # late
    tally.add(1, 200, 0.11, met)  # on time: another bound
    tally.add(1, 503, 0.003)
    tally.add(1, 500, 0.003)
    tally.add(1, 0, 0.0)
    found = tally.outcome()
    assert (found.on_time, found.late, found.refused, found.failed, found.false_on_time) == (2, 2, 1, 2, 1)
    assert found.offered == 7
    assert found.rate == 2.0
    assert found.goodput == 1.0
    assert found.refusals.count == 1
    assert found.answers.most_ms == pytest.approx(110.0)


def test_without_bounds_every_answer_is_on_time() -> None:
    tally = tally_of(1.0, [])
    tally.add(0, 200, 9.0)
    assert (tally.outcome().on_time, tally.outcome().late) == (1, 0)


def test_no_answers_have_no_times() -> None:
    assert times([]).count == 0


def test_arrivals_are_poisson_of_the_rate_and_within_the_time() -> None:
    job = Job(host="", port=1, requests=[b"a", b"b"], connections=1, seconds=99.0, warm_s=1.0, rate=100.0)
    run = Run(job)
    run._plan(50.0)
    gaps = [b - a for a, b in zip(run._arrivals, run._arrivals[1:], strict=False)]
    assert len(run._arrivals) == pytest.approx(10_000, rel=0.05)
    assert 50.0 < run._arrivals[0] < run._arrivals[-1] < 150.0
    mean = sum(gaps) / len(gaps)
    deviation = (sum((x - mean) ** 2 for x in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.1)  # as an exponential distribution has it
    assert set(run._kinds) == {0, 1}
