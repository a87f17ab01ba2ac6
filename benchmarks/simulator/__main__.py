"""`python -m benchmarks.simulator`: a million queries over 100 workers; one JSON line last."""

import argparse
import cProfile
import json
import pstats
import resource
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time

from benchmarks.measure import machine
from infaas_ray.domain import SLO, HardwareKind
from infaas_ray.policy.routing import Catalog
from infaas_ray.policy.scaling.settings import ScalingSettings
from infaas_ray.simulator.catalogues import load_catalogue
from infaas_ray.simulator.rates import Flat
from infaas_ray.simulator.report import RunResult, result_of
from infaas_ray.simulator.workload import QueryKind
from infaas_ray.simulator.workloads import Popular, Stream, zipf
from infaas_ray.simulator.world import World

CATALOGUE = Path(__file__).parents[2] / "configs" / "catalogs" / "infaas-2021.yaml"
WORKER_TYPE = "m5.2xlarge"
USE_CASE = "image-classification:imagenet"
TARGETS = ("resnet50", "mobilenetv1", "densenet121", "inceptionv3")


def processors_only(workers: int) -> Catalog:
    """The paper's catalogue on that many machines of 8 processors, no more and no fewer."""
    catalog = load_catalogue(CATALOGUE)
    kind = replace(catalog.worker_types[WORKER_TYPE], min_workers=workers, max_workers=workers)
    offers = {
        name: replace(x, worker_types=(WORKER_TYPE,))
        for name, x in catalog.offers.items()
        if x.variant.hardware is HardwareKind.CPU and WORKER_TYPE in x.worker_types
    }
    used = {x.variant.architecture for x in offers.values()}
    architectures = {name: x for name, x in catalog.architectures.items() if name in used}
    return replace(catalog, worker_types={WORKER_TYPE: kind}, offers=offers, architectures=architectures)


def popular() -> Popular:
    """Four architectures by Zipf's law, and the use case under three SLOs."""
    kinds = [QueryKind(target=x, slo=SLO(latency_s=0.5)) for x in TARGETS]
    kinds += [
        QueryKind(target=USE_CASE, slo=SLO(latency_s=bound_s, min_accuracy=accuracy))
        for bound_s, accuracy in ((0.2, 0.70), (0.5, 0.75), (1.0, 0.78))
    ]
    return Popular(kinds=tuple(kinds), shares=(*(0.6 * x for x in zipf(len(TARGETS))), 0.2, 0.15, 0.05))


def run(queries: int, workers: int, rate_qps: float) -> tuple[RunResult, float, float]:
    """One run: its result, and the seconds that it took, by the clock and of processor time."""
    duration_s = queries / rate_qps
    world = World(
        processors_only(workers),
        Stream(popular=popular(), rates=Flat(rate_qps=rate_qps, duration_s=duration_s)),
        ScalingSettings(strategy="individual", max_replicas_per_variant=1000),
        duration_s=duration_s,
    )
    started, used = perf_counter(), process_time()
    world.run()
    return result_of(world, "individual", 0), perf_counter() - started, process_time() - used


def peak_mib() -> float:
    """The most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024.0 if sys.platform == "linux" else 2.0**20)


def main() -> None:
    """Measure, print what came out, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--rate-qps", type=float, default=2_000.0)
    parser.add_argument("--profile", action="store_true", help="where the time goes, instead of how much")
    options = parser.parse_args()
    print(machine())
    if options.profile:
        with cProfile.Profile() as profile:
            run(options.queries, options.workers, options.rate_qps)
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
        return
    run(options.queries // 10, options.workers, options.rate_qps)
    small_mib = peak_mib()
    result, wall_s, cpu_s = run(options.queries, options.workers, options.rate_qps)
    each_us = 1e6 * cpu_s / result.arrived
    print(
        f"{result.arrived:,} queries, {result.slo_attainment:.2%} within their SLO, {result.starts} starts, "
        f"{result.usd:.2f} USD; {wall_s:.1f} s, {cpu_s:.1f} s of one core, {each_us:.1f} us a query"
    )
    print(f"peak memory {small_mib:.0f} MiB after a tenth of them, {peak_mib():.0f} MiB after all")
    found = {"queries": result.arrived, "wall_s": round(wall_s, 1), "cpu_s": round(cpu_s, 1)}
    found |= {"peak_mib": round(peak_mib()), "growth_mib": round(peak_mib() - small_mib)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
