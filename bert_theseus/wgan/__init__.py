"""WGAN and the true Wasserstein distance, kexue.fm/archives/8244 (WGAN的成功，可能跟Wasserstein
距离没啥关系).

    W(p, q) = max over |D|_Lip ≤ 1 of  E_p D(x) − E_q D(y)                            (dual)
            = min over couplings γ of  E_γ |x − y|                                    (primal)

A critic estimates the first line; ``exact_wasserstein`` computes the second, by network simplex.
The article shows pictures of a paper (arXiv 2103.01678); here every estimate has the truth beside
it, with seeds and intervals.

One idea a file: objectives, penalties, spectral (constraints), methods (their names), networks,
trainer, truth, then what the studies need: data, quality, static, training_study, batch_effect,
statements, plots.
"""

from bert_theseus.wgan.checks import check_samples, mixes_samples
from bert_theseus.wgan.methods import METHODS, Method, get_method
from bert_theseus.wgan.networks import (DenseRuns, SpectralDenseRuns, critic_network,
                                        dense_network, generator_network, image_critic,
                                        image_generator)
from bert_theseus.wgan.objectives import (c_epsilon_transform, c_transform, dual_value,
                                          gan_value, pairwise_distance, safe_sqrt, wasserstein)
from bert_theseus.wgan.penalties import (clip_weights, gradient_penalty, interpolate,
                                         one_sided_penalty, squared_gradient_norm,
                                         zero_centered_penalty)
from bert_theseus.wgan.spectral import SpectralConv2D, SpectralDense, normalize_kernel
from bert_theseus.wgan.trainer import Trainer
from bert_theseus.wgan.truth import exact_wasserstein, gaussian_wasserstein
from bert_theseus.wgan.centers import (batch_effect, distance_to_centers, geometric_median,
                                       k_means, k_medians, shift_beats_class)
from bert_theseus.wgan.data import World, digits, load_images, ring, ring_centers, shifted_gaussians
from bert_theseus.wgan.quality import (classifier_opinion, mode_coverage,
                                       nearest_neighbour_accuracy)
from bert_theseus.wgan.static import static_estimates, train_to_the_end
from bert_theseus.wgan.training import Diverged, make_trainer, train
from bert_theseus.wgan.worlds import digits_world, images_world, ring_world
