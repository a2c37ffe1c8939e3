"""From records and published numbers to one table of cells, like with like."""
