"""Buses, chips and instruments of a QKD module, and the roles they play."""
