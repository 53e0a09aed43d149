"""What is watched beside the loops: alarms, and figures over time."""
