"""What a frozen network is: the catalogue of backbones, their weights, and how they embed."""
