"""What exporters to Prometheus and OpenTelemetry send: totals, names and the health of the pipeline."""
