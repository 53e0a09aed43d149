"""`qmodd calibrate`: the calibrations of a module, or of an emulated pair, without the daemon."""
