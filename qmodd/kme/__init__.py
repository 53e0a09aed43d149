"""ETSI GS QKD 014 v1.1.1: an HTTPS server for encryptors, over the keys of a receiver."""
