"""What gradient flow conserves in any network: `find_laws` finds the laws, each knows its value, its scale and its symmetry."""

from richlearn.conservation.check import check
from richlearn.conservation.finder import find_laws
from richlearn.conservation.laws import Law, Laws, ScalingLaw, ShiftLaw

__all__ = ["Law", "Laws", "ScalingLaw", "ShiftLaw", "check", "find_laws"]
