"""What was measured and how: each benchmark is `python -m benchmarks.NAME`, from the checkout."""
