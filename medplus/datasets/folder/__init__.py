"""A folder of images as a dataset: found, described, split, decoded and cached."""
