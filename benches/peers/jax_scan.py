"""JAX: one jitted function an epoch, lax.scan over its batches, buffers donated; the tail is a step of its own."""
import os
import time

from common import arguments, mnist, report, versions

ARGS = arguments()
if ARGS.device == "cpu":  # read by JAX when it is imported
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={str(ARGS.threads > 1).lower()}"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import jaxlib  # noqa: E402

jax.config.update("jax_default_matmul_precision", "highest")  # float32, not tf32, on a GPU


def forward(params, x):
    (w1, b1), (w2, b2) = params
    return jax.nn.relu(x @ w1 + b1) @ w2 + b2


def loss_of(params, x, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(forward(params, x)), y[:, None], 1).mean()


def step(state, rows, x, y):
    params, velocity = state
    loss, grads = jax.value_and_grad(loss_of)(params, x[rows], y[rows])
    velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, grads)
    return (jax.tree.map(lambda p, v: p - 0.01 * v, params, velocity), velocity), loss


def epoch(state, key, x, y):
    order, batch = jax.random.permutation(key, len(y)), ARGS.batch
    whole = len(y) // batch * batch
    state, losses = jax.lax.scan(lambda s, rows: step(s, rows, x, y), state, order[:whole].reshape(-1, batch))
    if whole < len(y):
        state, last = step(state, order[whole:], x, y)
        losses = jnp.append(losses, last)
    return state, losses.mean()


def initial(key):
    def layer(key, inputs, outputs):
        kw, kb = jax.random.split(key)
        draw = lambda k, shape: jax.random.uniform(k, shape, minval=-inputs**-0.5, maxval=inputs**-0.5)
        return draw(kw, (inputs, outputs)), draw(kb, (outputs,))

    k1, k2 = jax.random.split(key)
    params = [layer(k1, 784, ARGS.hidden), layer(k2, ARGS.hidden, 10)]
    return params, jax.tree.map(jnp.zeros_like, params)


def main():
    started = time.perf_counter()
    x, y = mnist(ARGS.data_dir, "train")
    x, y = jnp.asarray(x, jnp.float32) / 255, jnp.asarray(y, jnp.int32)
    key = jax.random.key(ARGS.seed)
    state = initial(key)
    run = jax.jit(epoch, donate_argnums=0).lower(state, key, x, y).compile()
    keys = [jax.random.fold_in(key, e) for e in range(ARGS.epochs)]
    copy = jax.tree.map(jnp.copy, state)  # its buffers are given away
    jax.block_until_ready((run(copy, key, x, y), keys, state))  # warm-up
    setup = time.perf_counter() - started

    seconds, losses = [], []
    for of_epoch in keys:
        started = time.perf_counter()
        state, loss = run(state, of_epoch, x, y)
        losses.append(float(loss))  # waits for the epoch
        seconds.append(time.perf_counter() - started)

    xt, yt = mnist(ARGS.data_dir, "t10k")
    hits = forward(state[0], jnp.asarray(xt, jnp.float32) / 255).argmax(1) == yt
    report("jax-scan", versions(jax, jaxlib), ARGS, setup, seconds, losses, float(hits.mean()))


if __name__ == "__main__":
    main()
