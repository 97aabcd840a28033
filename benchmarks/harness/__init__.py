"""What the benchmarks share or start: no file in here measures anything by itself."""
