"""Measurements beside upstream's, made side by side in one run."""
