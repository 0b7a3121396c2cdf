"""What the package costs; each module is a command: `python -m benchmarks.NAME`."""
