import random
import subprocess
import sys

from benchmarks.measure import Spread, figure, percentile, ratios, spread


def test_a_spread_is_median_least_and_greatest() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(median=2.0, least=1.0, greatest=3.0)


def test_ratios_are_taken_within_a_repetition() -> None:
    assert ratios([10.0, 40.0, 90.0], [10.0, 20.0, 30.0]) == Spread(median=2.0, least=1.0, greatest=3.0)


def test_percentiles_are_values_that_occurred() -> None:
    ordered = sorted(random.Random(1).sample(range(1000), 137))
    assert percentile(ordered, 0.5) == ordered[68]
    assert percentile(ordered, 0.0) == ordered[0]
    assert percentile(ordered, 1.0) == ordered[-1]
    assert all(percentile(ordered, x / 100) in ordered for x in range(101))


def test_the_99th_percentile_of_a_hundred_is_the_99th() -> None:
    assert percentile(range(1, 101), 0.99) == 99


def test_figures_are_short() -> None:
    assert [figure(x) for x in (0.0, 0.01234, 1.5, 99.94, 12345.6)] == ["0", "0.0123", "1.5", "99.9", "12,346"]


def test_what_tidies_up_is_not_interrupted_by_a_second_sigterm() -> None:
    program = """
import os, signal
from benchmarks.measure import tidy_on_sigterm
tidy_on_sigterm()
try:
    os.kill(os.getpid(), signal.SIGTERM)
finally:
    os.kill(os.getpid(), signal.SIGTERM)
    print("tidied")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("tidied\n", "ended by SIGTERM\n", 1)
