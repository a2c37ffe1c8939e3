"""A collection to be looked at: a map of its images on one page that works offline."""
