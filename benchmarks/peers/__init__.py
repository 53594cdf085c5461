"""What one secure average costs here and in other systems, of the same numbers on the same machine."""
