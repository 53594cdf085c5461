"""What ``experiments/evaluate.py`` is made of: the grid, the data's split, one run, the rows, the report."""
