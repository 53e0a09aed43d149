"""The emulator's endpoints: how the bytes of real bus libraries reach the simulated electronics. Transport only."""
