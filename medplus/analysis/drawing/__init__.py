"""How figures look: a sheet in millimetres, one look for each backbone, rows and heat maps."""
