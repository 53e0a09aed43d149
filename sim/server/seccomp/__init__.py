"""Runs an unmodified program whose /dev/i2c-*, /dev/spidev* and serial settings are answered by the emulator.

The mechanism is Linux seccomp user notification (kernel 5.14 or newer): selected system calls of the program stop and
are answered by a small supervisor, which asks the emulated world over a Unix socket.
"""
