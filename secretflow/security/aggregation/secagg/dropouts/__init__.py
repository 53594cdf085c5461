"""Calls that end with those parties who are there.

``protocol`` says what a party and the server tell each other and why nothing else is opened, ``server`` and
``client`` are the two sides, ``wire`` what travels, ``keys`` and ``spent`` what a party must remember or
forget.
"""
