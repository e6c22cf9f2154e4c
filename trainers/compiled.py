"""Compiling the outermost functions: eqx.filter_jit, with options of XLA that suit our models, and programs kept."""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, Literal, TypeVar, cast

import equinox as eqx
import jax

from mlipdb.trainers.program_cache import keep_programs

Function = TypeVar("Function", bound=Callable[..., Any])

# Measured with jaxlib 0.10.2. By default sums over a short middle axis go to a library that takes up to fifty times as
# long as a plain loop: forces, Hessian rows and every gradient of a gated product have such sums. The second level of
# LLVM's optimisation takes a quarter of the compilation and makes nothing faster.
CPU_OPTIONS: dict[str, str | int] = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
    "xla_backend_optimization_level": 1,
}

# XLA makes two loops or more of every sum over more than 32 numbers: a tenth of all loops of a step of Nequix. Without
# it sums down long columns, such as the gradients of biases, are slow: PaiNN's step takes 0.32 instead of 0.18 s.
SUMS_AT_ONCE: dict[str, str | int] = {"xla_disable_hlo_passes": "tree_reduction_rewriter"}


def compiled(
    function: Function, *, donate: Literal["none", "all-except-first"] = "none", sums_in_stages: bool = True
) -> Function:
    """The function under eqx.filter_jit, with compiler_options; it must not be called from within another jit.

    Which device there is, and with it the options, is asked when it is called, so that a module may hold such a
    function.
    """

    @cache
    def made(options: tuple[tuple[str, str | int], ...]) -> Callable[..., Any]:
        keep_programs()
        jit: Any = eqx.filter_jit  # its signature does not name what it hands on to jax.jit
        found: Callable[..., Any] = jit(function, donate=donate, compiler_options=dict(options))
        return found

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return made(tuple(compiler_options(sums_in_stages=sums_in_stages).items()))(*args, **kwargs)

    return cast("Function", call)


@cache
def compiler_options(*, sums_in_stages: bool = True) -> dict[str, str | int]:
    """Those of CPU_OPTIONS that this version of XLA knows; none for a device that is no CPU.

    sums_in_stages is what a model's has_long_sums says of its training step, and true elsewhere.
    """
    if jax.default_backend() != "cpu":
        return {}
    wanted = CPU_OPTIONS if sums_in_stages else CPU_OPTIONS | SUMS_AT_ONCE
    return {name: value for name, value in wanted.items() if _is_known({name: value})}


def _is_known(options: dict[str, str | int]) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
