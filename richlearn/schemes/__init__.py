"""Initialisation schemes: what each does to a fresh network, and to its per-parameter learning rates."""

from richlearn.schemes.balanced import Balanced
from richlearn.schemes.base import Scheme, Truths
from richlearn.schemes.embedding_scale import EmbeddingScale
from richlearn.schemes.isotropic import Isotropic
from richlearn.schemes.kaiming import Kaiming
from richlearn.schemes.lambda_balanced import LambdaBalanced
from richlearn.schemes.layer_rates import LayerRates
from richlearn.schemes.lsuv import LSUV
from richlearn.schemes.mean_field import MeanField
from richlearn.schemes.multipliers import Multipliers
from richlearn.schemes.mup import MuP
from richlearn.schemes.ntk import NTK
from richlearn.schemes.orthogonal import Orthogonal
from richlearn.schemes.overall_scale import OverallScale
from richlearn.schemes.relative_scale import Downstream, RelativeScale, Unscaled, Upstream
from richlearn.schemes.single_unit import SingleUnit
from richlearn.schemes.standard import Standard
from richlearn.schemes.unbalanced import Unbalanced
from richlearn.schemes.xavier import Xavier

__all__ = [
    "LSUV",
    "NTK",
    "Balanced",
    "Downstream",
    "EmbeddingScale",
    "Isotropic",
    "Kaiming",
    "LambdaBalanced",
    "LayerRates",
    "MeanField",
    "MuP",
    "Multipliers",
    "Orthogonal",
    "OverallScale",
    "RelativeScale",
    "Scheme",
    "SingleUnit",
    "Standard",
    "Truths",
    "Unbalanced",
    "Unscaled",
    "Upstream",
    "Xavier",
]
