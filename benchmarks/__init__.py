"""What the package costs: `python -m benchmarks` measures all, `python -m benchmarks.NAME` one of them."""
