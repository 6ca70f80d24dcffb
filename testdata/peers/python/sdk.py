"""An application with every instrument of the OpenTelemetry Python SDK, which sends four exports and ends.

    sdk.py grpc|http ENDPOINT cumulative|delta none|gzip

Prints what was exported with success, as one line of JSON. Each export has the same values but for the counters, which grow: by
3 with code 500 and 9 with code 200, by 12 of the observed one, and by 10 values of 30 ms and as many of 100 ms in the histograms.
"""

import json
import sys
import time

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

EXPORTS = 4
# More than a bin of the tests, so that a rate has two bins to go from one to the other.
PAUSE_S = 1.2


def exporters(protocol: str, endpoint: str, temporality: str, compression: str) -> list:
    """One each for metrics, logs and spans."""
    kinds = (sdk.Counter, sdk.Histogram, sdk.ObservableCounter)
    preferred = {kind: AggregationTemporality[temporality.upper()] for kind in kinds}
    if protocol == "grpc":
        from grpc import Compression
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        how = {"endpoint": endpoint, "insecure": True}
        how["compression"] = Compression.Gzip if compression == "gzip" else Compression.NoCompression
        where = [how, how, how]
    else:
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        squeeze = Compression.Gzip if compression == "gzip" else Compression.NoCompression
        where = [
            {"endpoint": f"http://{endpoint}/v1/{signal}", "compression": squeeze}
            for signal in ("metrics", "logs", "traces")
        ]
    return [
        OTLPMetricExporter(preferred_temporality=preferred, **where[0]),
        OTLPLogExporter(**where[1]),
        OTLPSpanExporter(**where[2]),
    ]


def counting(exporter, told: dict):
    """Counts the points of what was exported with success, and the series that they are of."""
    export = exporter.export

    def count(data, *args, **kwargs):
        result = export(data, *args, **kwargs)
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        told["points"] += result is MetricExportResult.SUCCESS
                        told["failed"] += result is not MetricExportResult.SUCCESS
                        told["series"].add((metric.name, tuple(sorted(point.attributes.items()))))
        return result

    exporter.export = count
    return exporter


def main() -> None:
    told = {"points": 0, "failed": 0, "series": set()}
    metrics, logs, spans = exporters(*sys.argv[1:5])
    resource = Resource({"service.name": "shop"})
    reader = PeriodicExportingMetricReader(counting(metrics, told), export_interval_millis=float("inf"))
    view = View(instrument_name="wait", aggregation=ExponentialBucketHistogramAggregation())
    provider = sdk.MeterProvider([reader], resource, views=[view])
    meter = provider.get_meter("shop")
    seen = {"n": 0}

    def observed(_: CallbackOptions):
        yield Observation(12 * seen["n"])

    requests = meter.create_counter("requests")
    active = meter.create_up_down_counter("active")
    load = meter.create_gauge("load")
    latency = meter.create_histogram("latency", unit="ms")
    wait = meter.create_histogram("wait", unit="ms")
    meter.create_observable_counter("observed_requests", [observed])
    meter.create_observable_up_down_counter("observed_active", [lambda _: [Observation(-4)]])
    meter.create_observable_gauge("observed_load", [lambda _: [Observation(0.25)]])
    logged = LoggerProvider(resource)
    logged.add_log_record_processor(SimpleLogRecordProcessor(logs))
    traced = TracerProvider(resource=resource)
    traced.add_span_processor(SimpleSpanProcessor(spans))

    active.add(10, {"queue": "a"})
    active.add(-3, {"queue": "a"})
    for n in range(EXPORTS):
        seen["n"] = n + 1
        requests.add(9, {"code": 200})
        requests.add(3, {"code": 500})
        load.set(42.5)
        for _ in range(10):
            latency.record(30)
            wait.record(100)
        logged.get_logger("shop").emit(
            timestamp=time.time_ns(), severity_text="INFO", body=f"order {n}", event_name="order"
        )
        traced.get_tracer("shop").start_span("checkout").end()
        reader.force_flush()
        time.sleep(PAUSE_S)
    for one in (provider, logged, traced):
        one.shutdown()
    print(json.dumps({**told, "series": len(told["series"]), "logs": EXPORTS, "spans": EXPORTS}))


main()
