"""The statistics of a benchmark: pure functions over tables of cells.

Every module is one analysis and states its rule and where it comes from. Each says itself over
which part of a partial grid it is computed: nothing is filled in where a cell is missing.
"""
