"""Uses the library with all annotations checked by beartype; started by `test_shapes`.

The import hook wraps every function of `ifv_jax`, so this runs in a process of its own: the other
tests pass wrong types on purpose and expect `InputError`.
"""

from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401  (the hook finds it only if it is imported)


def main(folder: str) -> None:
    """One valid call, or more, of everything that has shapes in its signature."""
    with install_import_hook(["ifv_jax", "models"], "tests.typechecker.checked"):
        import ifv_jax as ifv
        from models import densenet, googlenet, srnet

    import jax
    import jax.numpy as jnp
    import numpy as np

    from ifv_jax import critical_kernel, jitter, parametrization, status, targets

    key = jax.random.key(0)
    shape, n, batch = (12, 12, 3), 4, 3

    for phi in (
        ifv.sigmoid_pixels(shape, decorrelate=True),
        ifv.fourier(shape, scaled=True),
        ifv.geometry_image((12, 12)),
        ifv.geometry_image((12, 12), mask="continuous"),
    ):
        images = phi.apply(phi.init(key, batch))
        assert phi.invert is not None
        phi.invert(images)
        phi.in_unit_range(images)
    parametrization.fourier_scale(12, 10)

    maps = jnp.ones((batch, 5, 5, n))
    for aggregate in (ifv.max_mean, ifv.mean, ifv.pick):
        aggregate(maps)
        aggregate(np.asarray(maps))
    ifv.identity(maps[:, 0, 0])

    t = ifv.sample_targets(key, batch, features=n, canonical=1)
    ifv.sample_targets(key, 2, features=n, among=[1, 2])
    ifv.random_targets(key, batch, features=n)
    ifv.canonical_targets([0, 2], features=n)
    ifv.hoyer_sparseness(t)
    targets.project_sparseness(np.ones((2, n)), np.array([0.1, 0.9]))

    r = jnp.abs(t) + 0.1
    for k in (0, 2, 2.5):
        ifv.significance(r, t, cosine_power=k)
        ifv.significance(r[0], t, cosine_power=k)
        jax.grad(lambda r, k=k: ifv.significance(r, t, cosine_power=k).sum())(r)
        jax.vmap(lambda r, k=k: ifv.weight_matrix(r, cosine_power=k))(r)
    ifv.angular_distance(r, t)
    ifv.angular_distance(np.asarray(r[0]), t)
    ifv.ssim(images, images)

    @jax.jit
    def apply(weights, images):
        return jax.nn.relu(jnp.einsum("bhwc,cf->bhwf", images - 0.5, weights))

    weights = jax.random.normal(key, (3, n))
    response = ifv.make_response(apply, ifv.sigmoid_pixels(shape))
    objective = ifv.make_objective(response)
    config = ifv.FVConfig(adam_steps=2, lbfgs_steps=0, steps_per_call=2, batch_size=2, jitter=1)
    found = ifv.visualize(objective, weights, t, key, config=config, run=folder)
    ifv.status_counts(found.status)
    status.usable(found.status)
    ifv.invert(response, weights, found.v, kinks=ifv.Perturbations(key, pairs=2))
    data = ifv.linearize_all(response, weights, found.v)
    predicted = ifv.solve(data, left_vectors=True)
    assert predicted.left_vectors is not None
    ifv.coefficients(predicted.left_vectors, t)
    again = ifv.reoptimize(objective, weights, found.v, predicted.objective, steps=2)
    ifv.verdict(again.ssim, again.ssim)
    jitter.shifted(1, jax.random.split(key, batch), jnp.arange(batch))(images)

    spectra = ifv.spectra(data.gram)
    critical_kernel.approximate_kernel(spectra, 0.5, order=key)
    ifv.candidate_spaces(spectra, response=data.response)
    planted = ifv.critical_space_from_complement(np.eye(n)[:, :1], response=data.response)
    ifv.choose_space(
        [ifv.Candidate(planted, 0.1, 0.2)], lambda space: ifv.solve(data, space=space).objective, t
    )
    ifv.project(planted, t[0])
    ifv.fraction_outside(planted, t)
    ifv.angular_distance(r, t, space=ifv.full_space(n))
    ifv.save_space(f"{folder}/space.npz", planted)
    ifv.load_space(f"{folder}/space.npz", features=n)

    # Traced only: shapes are known then.
    pixels = jnp.zeros((2, 32, 32, 3))
    for net, inputs in (
        (densenet.DenseNet(10, 4, 10), pixels),
        (googlenet.GoogLeNet("bvlc"), pixels),
        (googlenet.GoogLeNet("torchvision"), pixels),
        (srnet.SRNet(), jnp.zeros((2, 8, 8, 5))),
    ):
        variables = jax.eval_shape(net.init, key, inputs)
        loss = lambda images, variables, net=net: jnp.sum(net.apply(variables, images))  # noqa: E731
        jax.eval_shape(jax.grad(loss), inputs, variables)
    train = lambda images, variables: densenet.DenseNet(10, 4, 10).apply(  # noqa: E731
        variables, images, train=True, mutable=["batch_stats"]
    )
    jax.eval_shape(train, pixels, jax.eval_shape(densenet.DenseNet(10, 4, 10).init, key, pixels))
    srnet.finish(jnp.ones((2, 32, 32, 6)))

    # The hook is in place: a wrong shape does not get past the annotations.
    try:
        status.usable(jnp.zeros(2))
    except Exception as error:
        print(type(error).__name__)


if __name__ == "__main__":
    import sys

    main(sys.argv[1])
