"""A saved run as a model for new images: its probabilities, decisions and nearest train images."""
