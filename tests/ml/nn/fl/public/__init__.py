"""The public callables, how each is called rightly, and wrong values of its arguments."""
