"""Finite-key bounds of decoy-state BB84: what a block's counts pay for. Pure functions; `qmodd.keys.estimation` is the
face that the engine uses."""
