"""Parts of :class:`secretflow.security.aggregation.SecurePruneAggregator`, in the order data meets them.

``group`` is the driver's view of all actors, ``participant`` what a party's actor inherits, ``protocol`` what
it exchanges with the server, ``client`` how a message is made and read: ``keyring`` (agreed once), ``layout``
(which coordinates travel), ``encoder`` (numbers become ring elements), ``pads`` (ring elements become
uniformly random), ``opening`` (the way back). ``server`` adds up, and ``transport`` carries messages.

What is uploaded is decided by ``rules`` (who counts), ``weighing`` (the total of weights that stay at their
parties), ``ballot`` (who keeps an element, who leaves it) and ``contributions`` (what was in a sum before).
``transcript`` and ``checksum`` are for a server that lies.
"""
