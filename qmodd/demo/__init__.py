"""The demo: emulator, broker, alice, bob and a receiver a site, each a real process wired as in production."""
