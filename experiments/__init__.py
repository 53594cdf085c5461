"""What a person runs. ``python experiments/test_h_nn_prune.py --help`` says how."""
