"""What may be set at run time: the tree of settings, overrides of the configuration file, and what holds. Pure."""
