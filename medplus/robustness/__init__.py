"""What breaks it: heads and networks that exist, scored on corrupted test images."""
