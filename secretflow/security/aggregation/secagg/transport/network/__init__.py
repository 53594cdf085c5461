"""Streams between the parties' processes and the server's, over gRPC.

``hub`` is the server's end, ``stream`` a party's, ``frames`` how messages are cut for the way, ``tls`` who
may speak. What the messages are is in :mod:`...dropouts.wire`.
"""
