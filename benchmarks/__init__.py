"""Benchmarks of the parts that set the speed of a link, each beside a reference measured in the same run."""
