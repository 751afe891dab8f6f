"""What docs/latency.md quotes, runnable by anyone: ``python -m benchmarks.<name>``."""
