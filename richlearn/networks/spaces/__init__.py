"""Spaces of hidden units: what writes and reads them, and which changes of them no output shows."""

from richlearn.networks.spaces.find import Spaces, find_spaces
from richlearn.networks.spaces.space import Space, Term

__all__ = ["Space", "Spaces", "Term", "find_spaces"]
