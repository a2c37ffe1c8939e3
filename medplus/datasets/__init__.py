"""What images are: the catalogue of datasets, reading, caching, and synthetic stand-ins."""
