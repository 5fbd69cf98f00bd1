"""Metrics through Ray: every replica's numbers reach the node's one scrape endpoint."""

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping, Sequence

import httpx
import ray
from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from ray.util import metrics as ray_metrics

from tinybrain.telemetry.metrics import Counter, Gauge, Histogram, Levels, Metrics

log = logging.getLogger(__name__)

SCRAPE_TIMEOUT_S = 5
OURS = re.compile(r"(# (HELP|TYPE) )?ray_tinybrain_")


class _Counter:
    def __init__(self, name: str, description: str, labels: Sequence[str]) -> None:
        self._counter = ray_metrics.Counter(name, description, tuple(labels))

    def inc(self, value: float, tags: Mapping[str, str]) -> None:
        if value > 0:  # Ray refuses zero
            self._counter.inc(value, dict(tags))


class _Histogram:
    def __init__(
        self, name: str, description: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> None:
        self._histogram = ray_metrics.Histogram(name, description, list(buckets), tuple(labels))

    def observe(self, value: float, tags: Mapping[str, str]) -> None:
        self._histogram.observe(value, dict(tags))


class _Gauge:
    def __init__(self, name: str, description: str, labels: Sequence[str]) -> None:
        self._gauge = ray_metrics.Gauge(name, description, tuple(labels))

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        self._gauge.set(value, dict(tags))


class RayMeters:
    """Makes meters that Ray's agent exports as `ray_<name>`."""

    def counter(self, name: str, description: str, labels: Sequence[str]) -> Counter:
        """Make a counter."""
        return _Counter(name, description, labels)

    def histogram(
        self, name: str, description: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Histogram:
        """Make a histogram."""
        return _Histogram(name, description, labels, buckets)

    def gauge(self, name: str, description: str, labels: Sequence[str]) -> Gauge:
        """Make a gauge."""
        return _Gauge(name, description, labels)


def ray_metrics_of_service() -> Metrics:
    """The service's metrics, exported by Ray."""
    return Metrics(RayMeters())


def ray_levels_of_service() -> Levels:
    """What the settling process measures, exported by Ray."""
    return Levels(RayMeters())


async def scrape_cluster() -> str:
    """Our metrics from every node's agent, in Prometheus' text format."""
    alive = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's types end here
    urls = [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for node in alive
        if node["Alive"] and node.get("MetricsExportPort")
    ]
    async with httpx.AsyncClient(timeout=SCRAPE_TIMEOUT_S, trust_env=False) as client:
        texts = await asyncio.gather(*(_scrape(client, url) for url in urls))
    return merge(texts)


def merge(texts: Iterable[str]) -> str:
    """Several scrapes as one: the format wants each family only once."""
    families: dict[str, Metric] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            if family.name in families:
                families[family.name].samples += family.samples
            else:
                families[family.name] = family
    return generate_latest(_Families(families.values())).decode()


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


async def _scrape(client: httpx.AsyncClient, url: str) -> str:
    try:
        response = await client.get(url)
        response.raise_for_status()
    except httpx.HTTPError as error:
        log.warning("%s could not be scraped: %s", url, type(error).__name__)
        return ""
    # Ray's own series are many: parsing them would hold up the streams of this replica.
    return "".join(f"{line}\n" for line in response.text.splitlines() if OURS.match(line))
