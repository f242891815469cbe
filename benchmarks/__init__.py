"""What speed costs, as ratios: ``python -m benchmarks``."""
