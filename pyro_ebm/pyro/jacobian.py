import torch


def log_det_jtj(generator, z, *, method="exact", num_iterations=None, num_probes=1):
    D = generator(z).shape[1]
    _, pull = torch.func.vjp(generator, z)
    J = torch.func.vmap(lambda e: pull(e.expand(len(z), D))[0])(
        torch.eye(D, dtype=z.dtype)
    ).movedim(0, 1)
    if method == "smallest_singular_value":
        return 2 * z.shape[1] * torch.linalg.svdvals(J)[..., -1].log()
    return torch.linalg.slogdet(J.mT @ J)[1]
