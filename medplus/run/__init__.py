"""What a run leaves: its record, its predictions, and where they lie."""
