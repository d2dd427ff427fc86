"""Run `chancy-metrics` as `python -m chancy_metrics.plugin.cli`."""

from chancy_metrics.plugin.cli.main import main

if __name__ == "__main__":  # a process of a pool imports this module, too
    main()
