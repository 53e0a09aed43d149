"""Emulator of a pair of QKD modules: physics, electronics and endpoints. Knows data sheets, not our drivers."""
