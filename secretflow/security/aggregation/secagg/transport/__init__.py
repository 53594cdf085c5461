"""How messages travel between the parties' clients and the server.

``interface`` says what a transport is; ``driver`` carries messages through the driver, ``local`` over sockets
of one machine, whose ends are in ``channel``.
"""
