"""Products by Toeplitz matrices over GF(2), exact: what privacy amplification computes, without what it is for."""
