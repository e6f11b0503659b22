"""A prior that can be sampled, fitted to a trained model's latents: diffusion over all modalities at once.

MMVM defines no p(z) to sample from (paper, section 6). `fit_latent_diffusion` learns one afterwards over the M latents
of a sample, which stay apart where the Gaussian mixture of `fit_latent_density` pools them: one z for all modalities
knows neither which of them it comes from nor what is theirs alone. After MLD (arXiv 2306.04445), here on draws from
posteriors instead of deterministic codes: one noise time per modality, so that the same network gives joint samples and
samples of any modalities given any others.

Time t runs from 0 (the latent) to 1 (noise): z_t = cos(a) z + sin(a) e with a = pi t / 2, the cosine schedule. The
network gives v = dz_t / da = cos(a) e - sin(a) z (arXiv 2202.00512), so sampling is to integrate v from noise to 0.

Letters: M modalities, B batch or samples, D latent. Files: denoiser, density (what samples), learn (what fits).
"""

from mmvm.diffusion.density import LatentDiffusion
from mmvm.diffusion.learn import fit_latent_diffusion

__all__ = ["LatentDiffusion", "fit_latent_diffusion"]
