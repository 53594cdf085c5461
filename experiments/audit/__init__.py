"""The parts of the leakage audit: ``leakage_audit.py`` beside this folder puts them together."""
