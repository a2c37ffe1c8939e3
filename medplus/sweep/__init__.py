"""Sweeps: the whole grid of datasets, sizes, backbones, protocols and seeds, each run once."""
