"""What the benchmarks compare with, run in an environment of its own."""
