"""Measurements beside upstream's and Flower's, made side by side in one run."""
