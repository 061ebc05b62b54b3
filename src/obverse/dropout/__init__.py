"""Structured dropout: mask laws, layers, explicit regularizers, induced norms and global optima."""
