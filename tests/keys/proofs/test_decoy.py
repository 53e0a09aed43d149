"""The estimators bound the truth: channels made of photon-number yields, counts without scatter."""

import math

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qmodd.keys.proofs.decoy import Decoy

PULSES = 1e12
MOST_PHOTONS = 40


class Channel:
    """Any yields that an eavesdropper may choose for each number of photons; the vacuum errs half of the time."""

    def __init__(self, mu, p, yields, errors):
        self.yields = [*yields, *[yields[-1]] * (MOST_PHOTONS - len(yields))]
        self.errors = [0.5, *errors[1:], *[errors[-1]] * (MOST_PHOTONS - len(errors))]
        self.mu, self.p = mu, p

    def sent(self, k, n):
        return PULSES * self.p[k] * math.exp(-self.mu[k]) * self.mu[k] ** n / math.factorial(n)

    def of(self, n):
        """(detections, errors) of n-photon pulses of all intensities."""
        sent = sum(self.sent(k, n) for k in range(len(self.mu)))
        return sent * self.yields[n], sent * self.yields[n] * self.errors[n]

    def counts(self):
        n = [[self.sent(k, i) * self.yields[i] for i in range(MOST_PHOTONS)] for k in range(len(self.mu))]
        m = [[v * self.errors[i] for i, v in enumerate(row)] for row in n]
        return tuple(map(sum, n)), tuple(map(sum, m))


share = st.floats(1e-6, 1.0)
five = st.lists(share, min_size=5, max_size=5)
wrong = st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5)
SLACK = 1e-6 * PULSES * 1e-3


@settings(max_examples=200, deadline=None)
@given(st.floats(0.2, 1.0), st.floats(0.05, 0.9), st.floats(0.05, 0.95), five, wrong)
def test_one_decoy(mu1, ratio, p1, yields, errors):
    mu, p = (mu1, mu1 * ratio), (p1, 1 - p1)
    channel = Channel(mu, p, yields, errors)
    n, m = channel.counts()
    bound = Decoy(mu, p, 0.0)
    s0, s1, v1 = channel.of(0)[0], channel.of(1)[0], channel.of(1)[1]
    assert bound.least_vacuum(n, 0, 1) <= s0 + SLACK
    assert bound.most_vacuum(n, m) >= s0 - SLACK
    assert bound.least_single_of_one_decoy(n, m) <= s1 + SLACK
    assert bound.most_single_errors(m, 0, 1) >= v1 - SLACK


@settings(max_examples=200, deadline=None)
@given(st.floats(0.3, 1.0), st.floats(0.1, 0.8), st.floats(0.0, 0.5), st.floats(0.1, 0.8), five, wrong)
def test_two_decoys(mu1, ratio, weak, p1, yields, errors):
    mu = (mu1, mu1 * ratio, mu1 * ratio * weak)
    assume(mu[0] > (mu[1] + mu[2]) * 1.02)
    p = (p1, (1 - p1) * 0.6, (1 - p1) * 0.4)
    channel = Channel(mu, p, yields, errors)
    n, m = channel.counts()
    bound = Decoy(mu, p, 0.0)
    assert bound.least_vacuum(n, 1, 2) <= channel.of(0)[0] + SLACK
    assert bound.least_single_of_two_decoys(n) <= channel.of(1)[0] + SLACK
    assert bound.most_single_errors(m, 1, 2) >= channel.of(1)[1] - SLACK


@settings(max_examples=60, deadline=None)
@given(st.floats(1.0, 100.0), st.floats(0.001, 1.0))
def test_a_smaller_epsilon_never_promises_more(log_inverse, eta):
    mu, p = (0.5, 0.15), (0.6, 0.4)
    n = tuple(round(1e7 * q * -math.expm1(-eta * m)) for q, m in zip(p, mu, strict=True))
    m = tuple(v // 100 for v in n)
    loose, tight = Decoy(mu, p, log_inverse), Decoy(mu, p, log_inverse * 1.5)
    assert tight.least_single_of_one_decoy(n, m) <= loose.least_single_of_one_decoy(n, m)
    assert tight.most_single_errors(m, 0, 1) >= loose.most_single_errors(m, 0, 1)
