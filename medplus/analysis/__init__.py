"""What the results say: one file per analysis, each with all that belongs to it.

`results` reads runs and the paper's numbers into one shape, a `Benchmark`; every analysis turns it
into a `Section`, or into nothing where it does not apply. What a section looks like in files, in a
terminal and on the page is the business of `medplus.reporting`.
"""
