"""What happens around a search: checks, compiled programs, batches, judgement."""
