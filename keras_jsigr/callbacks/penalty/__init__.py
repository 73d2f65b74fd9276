"""How much each penalty counts in the loss and in its gradient, and what to do."""
