"""What a saliency grid is made of: its probe, measurement, picture and files."""
