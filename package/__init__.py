"""Exact, replayable metrics for Chancy. The public API is `chancy_metrics.plugin`; here is only the version."""

__all__ = ["__version__"]

__version__: str


def __getattr__(name: str) -> str:
    if name == "__version__":
        # Looked up on demand: a worker that only records does not search the installed distributions.
        from importlib.metadata import version

        return version("chancy-metrics")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
