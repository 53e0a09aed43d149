"""Composition of core: what is started in which order, what stops in the reverse order, and who hears of what."""
