"""Units of a torch model: which channels and outputs may be removed, and what goes with them.

A model is traced with :mod:`torch.fx` (:mod:`.tracing`), and the units of each layer are followed through
the graph (:mod:`.flow`, with one rule for each kind of layer in :mod:`.layers` and of function in
:mod:`.functions`) to the layers that read them. Units that meet in a sum are tied (:mod:`.ids`); those that
reach an output, or something that no rule covers, stay. :mod:`.groups` makes of it what pruning needs.
"""

from .groups import guard_rows, unit_groups

__all__ = ["guard_rows", "unit_groups"]
