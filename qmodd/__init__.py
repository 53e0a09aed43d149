"""Control daemon of rack-mount photonic-chip QKD modules."""

__version__ = "0.1.0"
