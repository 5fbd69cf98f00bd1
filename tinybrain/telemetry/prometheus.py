"""Metrics kept in a Prometheus registry of this process: for the library without Ray, and tests."""

from collections.abc import Mapping, Sequence

import prometheus_client as prometheus

from tinybrain.telemetry.metrics import Counter, Gauge, Histogram


class _Counter:
    def __init__(self, counter: prometheus.Counter) -> None:
        self._counter = counter

    def inc(self, value: float, tags: Mapping[str, str]) -> None:
        (self._counter.labels(**tags) if tags else self._counter).inc(value)


class _Histogram:
    def __init__(self, histogram: prometheus.Histogram) -> None:
        self._histogram = histogram

    def observe(self, value: float, tags: Mapping[str, str]) -> None:
        (self._histogram.labels(**tags) if tags else self._histogram).observe(value)


class _Gauge:
    def __init__(self, gauge: prometheus.Gauge) -> None:
        self._gauge = gauge

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        (self._gauge.labels(**tags) if tags else self._gauge).set(value)


class PrometheusMeters:
    """Makes meters in `registry`."""

    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, description: str, labels: Sequence[str]) -> Counter:
        """Make a counter."""
        return _Counter(prometheus.Counter(name, description, labels, registry=self._registry))

    def histogram(
        self, name: str, description: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Histogram:
        """Make a histogram."""
        return _Histogram(
            prometheus.Histogram(
                name, description, labels, registry=self._registry, buckets=buckets
            )
        )

    def gauge(self, name: str, description: str, labels: Sequence[str]) -> Gauge:
        """Make a gauge."""
        return _Gauge(prometheus.Gauge(name, description, labels, registry=self._registry))
