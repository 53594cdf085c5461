"""Parts of :class:`secretflow.security.aggregation.SecurePruneAggregator`, in the order data meets them.

``keys`` (agreed once), ``layout`` (which coordinates travel), ``encoder`` (numbers become ring elements),
``pads`` (ring elements become uniformly random), ``party`` and ``server`` (the two actors), ``channel`` (how
messages go from one to the other without the driver, on one machine).
"""
