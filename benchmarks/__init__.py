"""What is measured about speed: `python -m benchmarks --help`. Never part of a test: one that waits for a clock fails
on the busiest day."""
