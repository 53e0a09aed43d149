"""A receiver in a process of its own that a test kills: one line of base64 in, one acknowledgement a line out.

`python -m tests.receiver.feeder DIRECTORY SINK IDENTITY SENDER.pub`
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

from qmodd.identity import Recipient, SignerPublic
from qmodd.randomness import SystemRandomness
from qmodd.receive import Receiver
from qmodd.receiver.sink import FileSink
from tests.uplink_fakes import HandClock


def main() -> None:
    store, out, identity, sender = map(Path, sys.argv[1:])
    public = SignerPublic.load(sender)
    receiver = Receiver(store, Recipient.load(identity), {public.name: public.key}, HandClock())
    sink = FileSink(out, receiver.hand_out, SystemRandomness(), 5)
    sink.recover()
    for line in sys.stdin:
        suffix, data = line.split(" ")
        ack = receiver.handle(suffix.strip("-"), base64.b64decode(data))
        sys.stdout.write(base64.b64encode(ack).decode() + "\n")
        sys.stdout.flush()
        if "usable" in suffix:
            sink.flush()


if __name__ == "__main__":
    main()
