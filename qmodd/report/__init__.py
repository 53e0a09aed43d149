"""What a calibration found, for people: one HTML file, and the reference pages of the documentation."""
