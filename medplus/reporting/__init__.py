"""From results to a report.

`baseline` and `runs` are read, `select` puts like with like, `analyse` computes the `statistics`,
and `build` writes tables, figures and the page.
"""
