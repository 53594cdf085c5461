"""What ``experiments/sparse_training.py`` is made of: an engine that trains many runs at once, methods, peers."""
