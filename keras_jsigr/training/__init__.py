"""What a training step is made of: the forward pass, the maps, the checks."""
