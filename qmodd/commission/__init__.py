"""The commissioning report of a pair: who is in, link loss, self-test, first lock, first keys."""
