"""What `benchmarks/labels.py` trains, on what, and how."""
