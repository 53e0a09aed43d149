"""Self-test without the daemon: of a module, or of an emulated one (`qmodd selftest`)."""
