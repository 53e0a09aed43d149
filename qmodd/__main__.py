"""`python -m qmodd`: the same as the `qmodd` command."""

import sys

from qmodd.cli import main

sys.exit(main())
