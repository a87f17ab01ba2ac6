"""Catalogue files: what is read, what is refused, and whether the paper's catalogue is like the paper's."""

import csv
from pathlib import Path

import pytest
import yaml

from benchmarks.catalogs.derive import as_csv, derive, figures_file
from infaas_ray.config import Settings, from_yaml, load_settings
from infaas_ray.domain import HardwareKind
from infaas_ray.errors import ConfigError, InvalidInput
from infaas_ray.policy.placement import needs_of
from infaas_ray.policy.routing import Catalog, Offer
from infaas_ray.simulator.catalogues import at_speed, load_catalogue
from infaas_ray.storage.metadata import Metadata

from .builders import SPOT, architecture, catalog, measured

ROOT = Path(__file__).parents[3]
CATALOGS = ROOT / "configs/catalogs"


@pytest.fixture(scope="module")
def paper() -> Catalog:
    return load_catalogue(CATALOGS / "infaas-2021.yaml")


def images(paper: Catalog) -> list[Offer]:
    return [x for x in paper.offers.values() if x.profile.accuracy.metric == "top1_accuracy"]


# ---- the paper's catalogue


def test_it_has_the_papers_architectures_variants_and_machines(paper: Catalog) -> None:
    assert (len(paper.architectures), len(paper.offers)) == (22, 175)
    assert set(paper.worker_types) == {"m5.2xlarge", "p3.2xlarge", "inf1.2xlarge"}
    targets = paper.targets()
    assert len(targets["image-classification:imagenet"]) == 168
    assert targets["translation"] == targets["gnmt"]
    assert all(len({paper.offers[x].variant.hardware for x in targets[name]}) >= 2 for name in paper.architectures)


def test_its_ranges_are_the_papers(paper: Catalog) -> None:
    accuracies = [x.accuracy for x in images(paper)]
    assert min(accuracies) == pytest.approx(0.566, abs=0.003)
    assert max(accuracies) == pytest.approx(0.825, abs=0.001)
    loads = [x.profile.load_s for x in paper.offers.values()]
    assert (min(loads), max(loads)) == (0.59, 11.0)
    sizes = [x.variant.artifact_bytes for x in images(paper)]
    assert max(sizes) / min(sizes) > 50
    hourly = [hourly_usd(paper, x) for x in paper.offers.values()]
    assert (min(hourly), max(hourly)) == (pytest.approx(0.096), pytest.approx(3.06))
    latencies = [x.p50_s for offer in paper.offers.values() for x in offer.profile.latencies]
    assert max(latencies) / min(latencies) > 3700


def test_its_prices_per_memory_are_the_papers(paper: Catalog) -> None:
    gpu, neuron = (paper.worker_types[x] for x in ("p3.2xlarge", "inf1.2xlarge"))
    cpu = paper.worker_types["m5.2xlarge"]
    per_byte = cpu.usd_per_hour / cpu.memory_bytes
    assert gpu.usd_per_hour / gpu.device_memory_bytes / per_byte == pytest.approx(0.498 / 0.031, rel=0.02)
    assert neuron.usd_per_hour / neuron.device_memory_bytes / per_byte == pytest.approx(0.190 / 0.031, rel=0.02)


def hourly_usd(paper: Catalog, offer: Offer) -> float:
    """What a saturated replica costs an hour."""
    return offer.usd_per_1k * offer.profile.saturation_qps * 3.6


def test_its_profiles_make_sense(paper: Catalog) -> None:
    for name, offer in paper.offers.items():
        medians = [x.p50_s for x in offer.profile.latencies]
        assert medians == sorted(medians), name
        assert offer.profile.latencies[-1].batch == offer.variant.batch_limit
        rates = [x.batch / x.p50_s for x in offer.profile.latencies]
        assert offer.profile.saturation_qps == max(rates)
        for worker_type in (paper.worker_types[x] for x in offer.worker_types):
            needs = needs_of(offer, 1.0, worker_type)
            assert needs.amount <= worker_type.resources[needs.resource], name
            assert needs.memory_bytes <= worker_type.memory_bytes, name
            assert offer.profile.peak_device_memory_bytes <= worker_type.device_memory_bytes, name


def test_a_gpu_is_faster_and_a_processor_cheaper_to_keep(paper: Catalog) -> None:
    for name in paper.architectures:
        offers = [paper.offers[x] for x in paper.targets()[name]]
        best = {
            kind: min(x.profile.latencies[0].p50_s for x in offers if x.variant.hardware is kind)
            for kind in (HardwareKind.CPU, HardwareKind.GPU)
        }
        assert best[HardwareKind.GPU] < best[HardwareKind.CPU]


def test_every_row_says_where_it_is_from_and_every_source_is_used(paper: Catalog) -> None:
    sources = from_yaml((CATALOGS / "infaas-2021.yaml").read_text())["sources"]
    used = set()
    for offer in paper.offers.values():
        versions = offer.profile.versions
        names = {x for key in versions if key.endswith("_source") for x in versions[key].split("; ")}
        used |= names
        guessed = any(sources[x].startswith("estimated") for x in versions["latency_source"].split("; "))
        assert not guessed or versions["latency_estimated"] == "yes"
    assert used == set(sources)


def test_the_file_is_what_the_published_figures_give() -> None:
    assert (CATALOGS / "infaas-2021.csv").read_text() == as_csv(derive(figures_file()))


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("resnet50@mxnet-fp32-gpu-t1-b16", "ms_8", 8 * 1000 / 699.39),
        ("vgg16@mxnet-fp16-gpu-t1-b32", "ms_1", 1000 / 276.29),
        ("resnet50@tensorrt-int8-gpu-t1-b64", "ms_1", 1.22277),
        ("resnext101@tensorflow-fp32-gpu-t1-b16", "ms_16", 45.63),
        ("resnet50@mxnet-fp32-cpu-t8-b8", "ms_1", 1000 / 37.30 * 3.4 / 3.1),
        ("resnet50@neuron-fp16-neuron-t1-b4", "ms_1", 1 + (5 * 4000 / 2207 - 1) / 5),
    ],
)
def test_published_figures_stand_in_it(name: str, column: str, value: float) -> None:
    with (CATALOGS / "infaas-2021.csv").open(newline="") as file:
        rows = {
            "{architecture}@{runtime}-{precision}-{hardware}-t{threads}-b{batch_limit}".format(**x): x
            for x in csv.DictReader(file)
        }
    assert float(rows[name][column]) == pytest.approx(value, rel=1e-3)


# ---- other catalogues


def test_own_profiles_on_machines_of_2026() -> None:
    found = load_catalogue(CATALOGS / "measured-2026.yaml")
    assert set(found.targets()) >= {"digit-classification:digits64", "sentence-embedding:stdlib-docs"}
    for offer in found.offers.values():
        assert offer.usd_per_1k == min(
            found.worker_types[x].usd_per_1k(offer.variant, offer.profile) for x in offer.worker_types
        )


@pytest.mark.parametrize("name", ["aws.yaml", "aws-2026.yaml", "infaas-2021-prices.yaml"])
def test_every_price_has_a_source_and_a_date(name: str) -> None:
    rows = from_yaml((CATALOGS / name).read_text())["worker_types"]
    assert all(x["source"] and x["date"] for x in rows)
    types = load_settings(flags={"prices": {"catalog": str(CATALOGS / name)}}, environment={}).worker_types()
    assert len(types) == len(rows)
    for worker_type in types.values():
        accelerated = set(worker_type.resources) - {"CPU"}
        assert bool(worker_type.device_memory_bytes) == bool(accelerated)


def test_spot_machines_of_2026_stand_beside_the_same_ones_on_demand() -> None:
    types = load_settings(flags={"prices": {"catalog": str(CATALOGS / "aws-2026.yaml")}}, environment={}).worker_types()
    spot = [x for x in types.values() if x.spot]
    assert len(spot) * 2 == len(types)
    for worker_type in spot:
        twin = types[worker_type.name.removesuffix("-spot")]
        assert worker_type.resources == twin.resources
        assert worker_type.usd_per_hour < twin.usd_per_hour


def test_timm_tables_stand_for_worker_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results.csv").write_text("model,img_size,top1\nnet.a,224,80\n")
    (tmp_path / "gpu.csv").write_text(
        "model,infer_img_size,infer_samples_per_sec,infer_batch_size,param_count,infer_macts\nnet,224,1000,64,10,5\n"
    )
    file = catalogue(
        tmp_path,
        timm={
            "results": "$TABLES/results.csv",
            "tables": [
                {
                    "name": "a10g",
                    "file": "$TABLES/gpu.csv",
                    "precision": "amp",
                    "hardware": "gpu",
                    "worker_types": ["gpu"],
                    "speed": 0.5,
                }
            ],
        },
    )
    monkeypatch.delenv("TABLES", raising=False)
    with pytest.raises(ConfigError, match="set the environment variable in"):
        load_catalogue(file)
    monkeypatch.setenv("TABLES", str(tmp_path))
    found = load_catalogue(file)
    offer = found.offers["net-224@timm.a10g-amp-gpu-t1-b64"]
    assert offer.worker_types == ("gpu",)
    assert offer.profile.median_s(64) == pytest.approx(0.128)
    assert "assumed" in offer.profile.versions["speed"]


def test_a_variant_costs_what_it_costs_on_its_cheapest_worker_type() -> None:
    one = measured(worker_types=("cpu", "spot"))
    found = catalog(one).offers["net@onnx-fp32-cpu-t1-b16"]
    assert found.usd_per_1k == SPOT.usd_per_1k(one[0], one[1])
    assert found.worker_types == ("cpu", "spot")
    with pytest.raises(InvalidInput, match="unknown worker type 'tpu'"):
        catalog(measured(worker_types=("tpu",)))
    with pytest.raises(InvalidInput, match="needs GPU, which none of cpu has"):
        catalog(measured(hardware=HardwareKind.GPU))


def test_speed_scales_latencies_and_rate() -> None:
    _, profile, _ = measured(p50_s=0.01)
    faster = at_speed(profile, 2.0)
    assert (faster.latencies[0].p99_s, faster.saturation_qps) == (0.005, 200)
    assert at_speed(profile, 1.0) is profile


# ---- wrong files

PRICES = """worker_types:
  - {name: cpu, resources: {CPU: 8}, memory_gib: 32, usd_per_hour: 0.4}
  - {name: gpu, resources: {CPU: 8, GPU: 1}, memory_gib: 64, usd_per_hour: 3.0}
"""
HEADER = (
    "architecture,runtime,precision,hardware,threads,batch_limit,worker_types,ms_1,ms_4,p95_ratio,p99_ratio,load_s,"
    "memory_mib,device_memory_mib,artifact_mib,accuracy,metric,latency_source,latency_estimated,accuracy_source,"
    "accuracy_estimated,footprint_source"
)
ROW = "net,onnx,fp32,cpu,2,4,cpu,10,32,1.1,1.2,1.5,300,0,90,0.8,top1,a,no,a; b,yes,b"
USE_CASE = {
    "task": "vision",
    "dataset": "things",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    "architectures": ["net"],
}


def catalogue(folder: Path, **sections: object) -> Path:
    (folder / "prices.yaml").write_text(PRICES)
    file = folder / "catalogue.yaml"
    file.write_text(yaml.safe_dump({"prices": "prices.yaml", **sections}))
    return file


def published(folder: Path, row: str = ROW, header: str = HEADER) -> Path:
    (folder / "rows.csv").write_text(f"{header}\n{row}\n")
    return catalogue(folder, published="rows.csv", use_cases=[USE_CASE], sources={"a": "paper A", "b": "paper B"})


def test_a_row_becomes_an_offer(tmp_path: Path) -> None:
    offer = load_catalogue(published(tmp_path)).offers["net@onnx-fp32-cpu-t2-b4"]
    assert [(x.batch, x.p50_s, x.p99_s) for x in offer.profile.latencies] == [(1, 0.01, 0.012), (4, 0.032, 0.0384)]
    assert offer.profile.saturation_qps == 125
    assert offer.usd_per_1k == pytest.approx(0.4 / 4 / 3600 / 125 * 1000)
    assert offer.profile.versions["accuracy_source"] == "a; b"


@pytest.mark.parametrize(
    ("row", "header", "says"),
    [
        (ROW.replace("a; b", "c"), HEADER, "accuracy_source names 'c', which `sources` does not explain"),
        (ROW.replace(",no,", ",no,,").replace(",a; b", ""), HEADER, "which `sources` does not explain"),
        (ROW.replace("net,", "other,"), HEADER, "unknown architecture 'other'"),
        (ROW.replace(",10,", ",x,"), HEADER, "could not convert"),
        (ROW, HEADER.replace("load_s", "load"), "there is no column 'load_s'"),
        (ROW.replace(",cpu,10", ",tpu,10"), HEADER, "unknown worker type 'tpu'"),
        (ROW.replace(",10,", ",,"), HEADER, "needs latencies from batch 1 up"),
    ],
)
def test_wrong_rows_are_refused(tmp_path: Path, row: str, header: str, says: str) -> None:
    with pytest.raises(InvalidInput) as found:
        load_catalogue(published(tmp_path, row, header))
    assert says in str(found.value)


def test_what_is_registered_in_a_home_folder_is_read_as_it_is_offered_there(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    metadata = Metadata(Settings(home=home).metadata_url)
    for name, offered in (("net", True), ("other", False)):
        variant, profile, _ = measured(name)
        metadata.add_architecture(architecture(name))
        metadata.put_variant(variant, profile, offered=offered)
    metadata.close()
    file = tmp_path / "catalogue.yaml"
    file.write_text(yaml.safe_dump({"profiles": [{"home": "home", "worker_types": ["this-machine"]}]}))
    found = load_catalogue(file)
    here = found.worker_types["this-machine"]
    assert (here.min_workers, here.max_workers) == (1, 1)
    (offer,) = found.offers.values()
    assert offer.variant == measured("net")[0]
    assert offer.usd_per_1k == here.usd_per_1k(offer.variant, offer.profile)


@pytest.mark.parametrize("source", [{}, {"file": "a", "home": "b"}])
def test_profiles_are_from_a_file_or_a_home_folder(tmp_path: Path, source: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="either `file` or `home`"):
        load_catalogue(catalogue(tmp_path, profiles=[{**source, "worker_types": ["cpu"]}]))


def test_a_home_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no home folder"):
        load_catalogue(catalogue(tmp_path, profiles=[{"home": "nowhere", "worker_types": ["cpu"]}]))
    assert not (tmp_path / "nowhere").exists()


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the catalogue"):
        load_catalogue(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="variants: Extra inputs"):
        load_catalogue(catalogue(tmp_path, variants="x"))
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_catalogue(tmp_path / "bad.yaml")
