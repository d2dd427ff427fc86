"""The report: what happened in some time, against the same hours of the days before."""
