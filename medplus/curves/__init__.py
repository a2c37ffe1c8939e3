"""How many labels are enough: heads on few images of each class, and what more would bring."""
