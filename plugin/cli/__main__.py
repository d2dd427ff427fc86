"""Run `chancy-metrics` as `python -m chancy_metrics.plugin.cli`."""

from chancy_metrics.plugin.cli.main import main

main()
