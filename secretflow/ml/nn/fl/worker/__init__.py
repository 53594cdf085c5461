"""What happens at one party: its masked model, its training, and the rounds of both."""
