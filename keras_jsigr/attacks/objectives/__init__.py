"""What attacks drive up: losses per example, from logits."""
