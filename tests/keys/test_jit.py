from qmodd.keys.jit import kernel, uncompiled


def double(x):
    return 2 * x


def test_a_kernel_and_its_uncompiled_self():
    compiled = kernel(double)
    assert compiled(4) == compiled.py_func(4) == 8
    plain = uncompiled(lambda x: x + 1)
    assert plain(1) == plain.py_func(1) == 2
