"""What the key store refuses."""


class StoreRefused(Exception):
    """The store or its key-encryption key cannot be used; says which file and why."""
