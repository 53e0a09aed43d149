"""Names of the reference module's channels, as its configuration gives them to the drivers (reference pair A2, A3)."""

HEATERS = {
    "alice": ("filter", "split", "phase", "shutter"),
    "bob": ("basis", "split", "phase", "combine"),
}
PHOTODIODES = {
    "alice": ("pa0", "pa1", "pa3", "pa4", "pa5", "pa6"),
    "bob": ("pb0", "pb1", "pb2", "pb3"),
}
HEATER_MONITOR = "heater_monitor"
STATES = ("z0", "z1", "x0", "x1")
INTENSITIES = ("signal", "decoy")
DETECTORS = ("dz", "dx0", "dx1")
