"""Builders with defaults, so that a test names only what matters."""

from collections.abc import Mapping, Sequence

from infaas_ray.domain import (
    Accuracy,
    Architecture,
    BatchLatency,
    Hardware,
    HardwareKind,
    Profile,
    TensorSpec,
    UseCase,
    Variant,
    WorkerType,
)
from infaas_ray.policy.messages import ClassCount, ReplicaReady, TrafficReported, WorkerJoined
from infaas_ray.policy.routing import Catalog, Offer, ReadyReplica, RoutingTable

MIB = 2**20
USE_CASE = "classification:digits"


def profile(
    name: str = "net@onnx-fp32-cpu-t1-b8",
    *,
    p99_ms: Sequence[tuple[int, float]] = ((1, 10.0), (8, 24.0)),
    median: float = 0.5,
    accuracy: float = 0.9,
    load_s: float = 1.0,
    rate_qps: float = 100.0,
    memory_bytes: int = 100 * MIB,
) -> Profile:
    """A profile whose medians are `median` of its p99."""
    return Profile(
        variant=name,
        hardware=Hardware(kind=HardwareKind.CPU, model="test", cores=4, memory_bytes=8 * 2**30),
        load_s=load_s,
        latencies=tuple(
            BatchLatency(batch=batch, p50_s=ms * median / 1e3, p95_s=ms / 1e3, p99_s=ms / 1e3) for batch, ms in p99_ms
        ),
        saturation_qps=rate_qps,
        peak_memory_bytes=memory_bytes,
        accuracy=Accuracy(value=accuracy, metric="top1", rows=1000, standard_error=0.01),
    )


def offer(
    architecture: str = "net",
    *,
    usd: float = 0.01,
    accuracy: float = 0.9,
    p99_ms: Sequence[tuple[int, float]] = ((1, 10.0), (8, 24.0)),
    median: float = 0.5,
    load_s: float = 1.0,
    rate_qps: float = 100.0,
    batch_limit: int = 8,
    threads: int = 1,
    memory_bytes: int = 100 * MIB,
    hardware: HardwareKind = HardwareKind.CPU,
) -> Offer:
    """A variant of `architecture` on offer; a test has one variant per architecture, named `v(architecture)`."""
    variant = Variant(
        architecture=architecture,
        runtime="onnx",
        precision="fp32",
        hardware=hardware,
        threads=threads,
        batch_limit=batch_limit,
        artifact="0" * 64,
    )
    measured = profile(
        variant.name,
        p99_ms=p99_ms,
        median=median,
        accuracy=accuracy,
        load_s=load_s,
        rate_qps=rate_qps,
        memory_bytes=memory_bytes,
    )
    return Offer(variant=variant, profile=measured, usd_per_1k=usd)


def v(architecture: str) -> str:
    """The name of the default variant of an architecture."""
    return f"{architecture}@onnx-fp32-cpu-t1-b8"


def catalog(*offers: Offer, revision: int = 1, types: Sequence[WorkerType] = ()) -> Catalog:
    """A catalogue whose architectures all serve the same use case."""
    tensor = TensorSpec(name="x", datatype="FP32", shape=(-1, 4))
    use_case = UseCase(task="classification", dataset="digits")
    names = {x.variant.architecture for x in offers}
    return Catalog(
        revision=revision,
        worker_types={x.name: x for x in types},
        architectures={
            name: Architecture(name=name, use_case=use_case, inputs=(tensor,), outputs=(tensor,))
            for name in sorted(names)
        },
        offers={x.name: x for x in offers},
    )


def table(
    *offers: Offer,
    ready: Mapping[str, int] | None = None,
    loading: Mapping[str, float] | None = None,
    blocked: Mapping[str, str] | None = None,
) -> RoutingTable:
    """A routing table; `ready` gives the number of replicas by variant, named `variant#1` and so on."""
    return RoutingTable(
        version=1,
        catalog=catalog(*offers),
        replicas=tuple(
            ReadyReplica(id=f"{name}#{n + 1}", variant=name, worker="w", address="a")
            for name, count in (ready or {}).items()
            for n in range(count)
        ),
        loading=loading or {},
        blocked=blocked or {},
    )


def worker(
    name: str = "w1", *, cpu: float = 4.0, gpu: float = 0.0, memory_bytes: int = 8 * 2**30, kind: str = "test"
) -> WorkerJoined:
    """A worker that joins."""
    resources = {"CPU": cpu} | ({"GPU": gpu} if gpu else {})
    return WorkerJoined(worker=name, worker_type=kind, resources=resources, memory_bytes=memory_bytes)


def worker_type(
    name: str = "cpu",
    *,
    cpu: float = 4.0,
    gpu: float = 0.0,
    usd: float = 0.4,
    boot_s: float = 10.0,
    least: int = 0,
    most: int = 10,
) -> WorkerType:
    """A kind of machine that can be asked for."""
    return WorkerType(
        name=name,
        resources={"CPU": cpu} | ({"GPU": gpu} if gpu else {}),
        memory_bytes=8 * 2**30,
        usd_per_hour=usd,
        boot_s=boot_s,
        min_workers=least,
        max_workers=most,
    )


def ready(replica: str, worker: str = "w1") -> ReplicaReady:
    """A replica `variant#n` that answers."""
    return ReplicaReady(replica=replica, variant=replica.rpartition("#")[0], worker=worker, address="a")


def traffic(
    wanted: Mapping[str, int] | None = None,
    served: Mapping[str, int] | None = None,
    refused: Mapping[str, int] | None = None,
    *,
    router: str = "r",
    window_s: float = 1.0,
    classes: Sequence[ClassCount] = (),
    ongoing: Mapping[str, int] | None = None,
    slowdowns: Mapping[str, float] | None = None,
    applications: Mapping[str, Mapping[str, int]] | None = None,
) -> TrafficReported:
    """A router's report; what is wanted is served unless said otherwise."""
    wanted = wanted or {}
    return TrafficReported(
        router=router,
        window_s=window_s,
        wanted=wanted,
        served=wanted if served is None else served,
        refused=refused or {},
        classes=tuple(classes),
        ongoing=ongoing or {},
        slowdowns=slowdowns or {},
        applications=applications or {},
    )
