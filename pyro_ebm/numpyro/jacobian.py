import jax, jax.numpy as jnp


def log_det_jtj(rng_key, generator, z, *, method="exact", num_iterations=None, num_probes=1):
    J = jax.vmap(lambda e: jax.jvp(generator, (z,), (jnp.broadcast_to(e, z.shape),))[1])(
        jnp.eye(z.shape[1])
    )
    J = jnp.moveaxis(J, 0, 2)
    if method == "smallest_singular_value":
        return 2 * z.shape[1] * jnp.log(jnp.linalg.svd(J, compute_uv=False)[..., -1])
    return jnp.linalg.slogdet(jnp.swapaxes(J, 1, 2) @ J)[1]
