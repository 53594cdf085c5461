"""What ``experiments/sparse_training.py`` is made of: an engine for many runs at once, methods, peers."""
