"""Options for XLA change how fast a program is, not what it gives, and one that XLA does not know is left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlipdb.trainers import compiled as module
from mlipdb.trainers.compiled import compiled, compiler_options


@pytest.fixture
def fresh_options():
    compiler_options.cache_clear()
    yield
    compiler_options.cache_clear()


def test_an_option_that_this_xla_does_not_know_is_left_out(fresh_options, monkeypatch):
    monkeypatch.setattr(module, "CPU_OPTIONS", {"xla_no_such_option": True, "xla_backend_optimization_level": 1})
    assert compiler_options() == {"xla_backend_optimization_level": 1}


def test_sums_are_in_stages_but_where_a_model_has_no_long_ones(fresh_options):
    apart = "xla_disable_hlo_passes"
    assert apart not in compiler_options()
    assert compiler_options(sums_in_stages=False) == {**compiler_options(), apart: "tree_reduction_rewriter"}


def test_only_the_cpu_has_options(fresh_options, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options() == {}


def test_a_compiled_function_gives_what_the_function_gives():
    def products(values, *, times):
        return (values[:, :, None] * times[:, None, :]).sum(axis=1)

    values, times = jnp.arange(12.0).reshape(4, 3), jnp.arange(20.0).reshape(4, 5)
    np.testing.assert_allclose(compiled(products)(values, times=times), products(values, times=times), rtol=1e-6)
    assert compiled(products).__name__ == "products"


def test_nothing_is_compiled_before_the_first_call(monkeypatch):
    monkeypatch.setattr(module, "compiler_options", lambda **_: pytest.fail("asked for the device too early"))
    compiled(lambda values: values)
