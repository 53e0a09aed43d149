"""The few errors a caller of a driver can tell apart."""


class DriverError(Exception):
    """Base of everything a driver raises. The message says which device and what an operator can act on."""


class BusFault(DriverError):
    """The bus or the instrument failed: NACK, I/O error, broken frame, wrong checksum after all retries."""


class Timeout(DriverError):
    """The device did not answer within the deadline of the call."""


class Refused(DriverError):
    """The device understood and said no; the message carries the device's own reason."""


class OutOfRange(DriverError):
    """A value outside a limit; nothing was written. Names output, value, limit and unit."""


class Stale(DriverError):
    """A reading exists but is too old or was taken before a reset."""


class WrongDevice(DriverError):
    """Another chip, or none, answers at this address: bus, address, expected, found."""
