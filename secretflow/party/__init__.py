"""One party of a training over the network: its keys, the cluster that it belongs to, its start and its run.

``python -m secretflow.party --help`` is the way in. Nothing here imports torch or Ray before a run starts.
"""
