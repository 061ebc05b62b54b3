"""The experiments of ``benchmarks/har.py``."""
