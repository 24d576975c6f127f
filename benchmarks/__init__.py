"""What fourtuple costs, measured: `make bench`, or `python -m benchmarks [--quick] [--json] [section ...]`."""
