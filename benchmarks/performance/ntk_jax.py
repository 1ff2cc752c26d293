"""The workloads of `ntk.py` in JAX, for neural-tangents 0.6.5: `pip install "jax==0.4.30" "jaxlib==0.4.30" neural-tangents`.

    python ntk_jax.py WORKLOAD OUTPUTS INPUT.npz OUTPUT.npz SECONDS

A process of its own, started by `ntk.py`: the libraries that neural-tangents brings do not agree with torch's in one. INPUT holds
the weights of the torch network and the probe as `x`; OUTPUT gets the kernel and the least CPU time of a call.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax._src.interpreters import ad as _ad
from jax.interpreters import ad

for _name in set(vars(_ad)) - set(vars(ad)):  # neural-tangents looks for some here, where JAX had them once
    setattr(ad, _name, getattr(_ad, _name))
ad.config = jax.config
import neural_tangents as nt  # noqa: E402

Weights = dict[str, Any]


# Primitives only: jax.numpy's own compiled functions hide the structure from neural-tangents, which then is twenty times slower.


def _dense(p: Weights, name: str, x: Any) -> Any:
    y = lax.dot_general(x, p[f"{name}.weight"], (((x.ndim - 1,), (1,)), ((), ())))
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def _relu(x: Any) -> Any:
    return lax.max(x, jnp.zeros((), x.dtype))


def _conv(p: Weights, name: str, x: Any, stride: int = 1, padding: int = 0) -> Any:
    sides = [(padding, padding)] * 2
    y = lax.conv_general_dilated(x, p[f"{name}.weight"], (stride, stride), sides, dimension_numbers=("NCHW", "OIHW", "NCHW"))
    return y + p[f"{name}.bias"][:, None, None] if f"{name}.bias" in p else y


def _mean(x: Any, *axes: int) -> Any:
    total = lax.reduce(x, np.float32(0), lax.add, axes)
    return total * np.float32(total.size / x.size)


def _layer_norm(p: Weights, name: str, x: Any) -> Any:
    last = x.ndim - 1
    centred = x - _mean(x, last)[..., None]
    return centred * lax.rsqrt(_mean(centred * centred, last) + np.float32(1e-5))[..., None] * p[f"{name}.weight"] + p[f"{name}.bias"]


def _batch_norm(p: Weights, name: str, x: Any) -> Any:
    """Of a fresh network in evaluation mode: mean 0, variance 1."""
    return x * np.float32((1 + 1e-5) ** -0.5) * p[f"{name}.weight"][:, None, None] + p[f"{name}.bias"][:, None, None]


def _max_pool(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def _chain(p: Weights, x: Any) -> Any:
    names = sorted({name.rpartition(".")[0] for name in p}, key=lambda name: int(name.rpartition(".")[2]))
    for name in names[:-1]:
        x = _relu(_dense(p, name, x))
    return _dense(p, names[-1], x)


def _lenet(p: Weights, x: Any) -> Any:
    x = _max_pool(_relu(_conv(p, "0", x, padding=2)))
    x = _max_pool(_relu(_conv(p, "3", x)))
    x = lax.reshape(x, (len(x), x.size // len(x)))
    return _dense(p, "11", _relu(_dense(p, "9", _relu(_dense(p, "7", x)))))


def _heads(x: Any) -> Any:
    n, t, d = x.shape
    return lax.transpose(lax.reshape(x, (n, t, 4, d // 4)), (0, 2, 1, 3))


def _transformer(p: Weights, x: Any) -> Any:
    h = p["tokens.weight"][x] + p["positions"]
    n, t, d = h.shape
    q, k, v = (_heads(_dense(p, name, h)) for name in "qkv")
    scores = lax.dot_general(q, k, (((3,), (3,)), ((0, 1), (0, 1)))) * np.float32((d // 4) ** -0.5)
    raised = lax.exp(scores)
    shares = raised / lax.reduce(raised, np.float32(0), lax.add, (3,))[..., None]
    mixed = lax.dot_general(shares, v, (((3,), (2,)), ((0, 1), (0, 1))))
    mixed = lax.reshape(lax.transpose(mixed, (0, 2, 1, 3)), (n, t, d))
    h = _layer_norm(p, "layer.norm1", h + _dense(p, "layer.self_attn.out_proj", mixed))
    inner = _dense(p, "layer.linear1", h)
    hidden = inner * np.float32(0.5) * (np.float32(1) + lax.erf(inner * np.float32(0.5**0.5)))
    h = _layer_norm(p, "layer.norm2", h + _dense(p, "layer.linear2", hidden))
    return _dense(p, "head", _layer_norm(p, "norm", lax.squeeze(lax.slice_in_dim(h, t - 1, t, axis=1), (1,))))


def _block(p: Weights, name: str, x: Any, stride: int) -> Any:
    y = _relu(_batch_norm(p, f"{name}.norm1", _conv(p, f"{name}.conv1", x, stride, 1)))
    y = _batch_norm(p, f"{name}.norm2", _conv(p, f"{name}.conv2", y, 1, 1))
    return _relu(y + (x if stride == 1 else _conv(p, f"{name}.skip", x, stride)))


def _resnet(p: Weights, x: Any) -> Any:
    x = _relu(_batch_norm(p, "1", _conv(p, "0", x, padding=7)))
    for name, stride in (("3", 1), ("4", 2), ("5", 2)):
        x = _block(p, name, x, stride)
    return _dense(p, "8", _mean(x, 2, 3))


FUNCTIONS = {"a": _chain, "b": _chain, "c": _lenet, "d": _transformer, "e": _resnet}


def kernel(key: str, weights: Weights, x: Any, outputs: str) -> Callable[[], np.ndarray]:
    """Compiled structured derivatives; full kernels with rows sample·c + output."""
    function = FUNCTIONS[key]
    c = function(weights, x[:1]).shape[1]
    computed = nt.empirical_ntk_fn(
        lambda p, x: function(p, x),
        trace_axes=(-1,) if outputs == "trace" else (),
        vmap_axes=0,
        implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES,
    )
    compiled = jax.jit(lambda x, weights: computed(x, None, weights))

    def run() -> np.ndarray:
        found = np.asarray(compiled(x, weights).block_until_ready())
        if outputs == "trace":
            return found * c  # it divides the trace by the number of outputs
        return found.transpose(0, 2, 1, 3).reshape(len(x) * c, -1)

    return run


def main() -> None:
    key, outputs, source, target, seconds = sys.argv[1:]
    given = {name: jnp.asarray(value) for name, value in np.load(source).items()}
    x = given.pop("x")
    for part in ("weight", "bias") if key == "d" else ():  # parts of one weight have no structure for neural-tangents
        whole = given.pop(f"layer.self_attn.in_proj_{part}")
        given |= {f"{name}.{part}": value for name, value in zip("qkv", jnp.split(whole, 3), strict=True)}
    run = kernel(key, given, x, outputs)
    found, best, spent, count = run(), float("inf"), 0.0, 0
    while count < 1 or (spent < float(seconds) and count < 30):
        start = time.process_time()
        run()
        took = time.process_time() - start
        best, spent, count = min(best, took), spent + took, count + 1
    np.savez(target, kernel=found, seconds=best)


if __name__ == "__main__":
    main()
