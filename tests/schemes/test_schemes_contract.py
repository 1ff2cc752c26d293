"""The contract of schemes, and that it finds what it shall find."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from richlearn import schemes
from richlearn.catalog import SCHEMES
from richlearn.errors import NotApplicable
from richlearn.schemes import Multipliers, Scheme, Standard, Truths
from richlearn.schemes.contract import check

PARAMETERISED = [
    schemes.RelativeScale(3.0),
    schemes.OverallScale(0.5),
    schemes.Unbalanced(0.1, 1.0),
    schemes.LambdaBalanced(0.5),
    schemes.LambdaBalanced(-2.0),
    schemes.MuP(4),
    schemes.LayerRates(first=10.0),
]
USER_FILE = '''
from dataclasses import dataclass

import torch

from richlearn.errors import ParameterError
from richlearn.networks import find
from richlearn.schemes import Multipliers, Scheme, Standard


@dataclass(frozen=True)
class QuietReadout(Scheme):
    """Standard with a smaller readout."""

    factor: float = 0.1

    def __post_init__(self):
        if self.factor <= 0:
            raise ParameterError(f"`factor` must be positive, got {self.factor}")

    def apply(self, network, generator, *, batch=None, optimizer=None):
        Standard().apply(network, generator)
        with torch.no_grad():
            for name in find(network).readout:
                network.get_parameter(name).mul_(self.factor)
        return Multipliers()
'''


@pytest.mark.parametrize("name", list(SCHEMES.own))
def test_every_scheme_of_the_suite_keeps_the_contract(name):
    assert check(SCHEMES.load(name)) == []


@pytest.mark.parametrize("scheme", PARAMETERISED, ids=repr)
def test_every_scheme_keeps_the_contract_away_from_its_defaults(scheme):
    assert check(scheme) == []


def test_a_users_scheme_in_a_file_keeps_the_contract(tmp_path):
    path = tmp_path / "my_scheme.py"
    path.write_text(USER_FILE)
    assert check(SCHEMES.load(f"{path}:QuietReadout")) == []


class _Base(Scheme):
    def apply(self, network, generator, *, batch=None, optimizer=None):
        return Standard().apply(network, generator)


class _GlobalStream(_Base):
    def apply(self, network, generator, *, batch=None, optimizer=None):
        nn.init.normal_(next(network.parameters()))
        return Multipliers()


class _Replaces(_Base):
    def apply(self, network, generator, *, batch=None, optimizer=None):
        network.double()
        return Multipliers()


class _Nothing(_Base):
    def apply(self, network, generator, *, batch=None, optimizer=None):
        return Multipliers()


class _NaN(_Base):
    def apply(self, network, generator, *, batch=None, optimizer=None):
        super().apply(network, generator)
        nn.init.constant_(next(network.parameters()), float("nan"))
        return Multipliers()


class _ReturnsNone(_Base):
    def apply(self, network, generator, *, batch=None, optimizer=None):
        super().apply(network, generator)


class _WrongName(_Base):
    def apply(self, network, generator, *, batch=None, optimizer=None):
        super().apply(network, generator)
        return Multipliers(lr={"readout": 2.0})


class _Crashes(_Base):
    def apply(self, network, generator, *, batch=None, optimizer=None):
        return super().apply(network.no_such_layer, generator)


class _ServesNone(_Base):
    def apply(self, network, generator, *, batch=None, optimizer=None):
        raise NotApplicable("only on Sundays")


class _NoReason(_Base):
    def apply(self, network, generator, *, batch=None, optimizer=None):
        raise NotApplicable


class _FalseDelta(_Base):
    def truths(self):
        return Truths(delta=0.5)


class _FalseFunction(_Base):
    def truths(self):
        return Truths(same_function_as=schemes.Kaiming())


@dataclass(frozen=True)
class _NeedsArgument(_Base):
    factor: float


@pytest.mark.parametrize(
    ("scheme", "finding"),
    [
        (_GlobalStream, "global random stream has moved"),
        (_Replaces, "TwoLayer.*float32: names, shapes, dtypes"),
        (_Nothing, "another generator seed gives the same parameters: set `deterministic = True`"),
        (_NaN, "some parameters are not finite"),
        (_ReturnsNone, "`apply` must return `Multipliers`, got NoneType"),
        (_WrongName, "the lr multipliers name `readout`, which the network does not have"),
        (_Crashes, r"AttributeError: .*no_such_layer.*must get `NotApplicable`"),
        (_ServesNone, "it is not applicable to any of the networks tried"),
        (_NoReason, "`NotApplicable` is raised without a reason"),
        (_FalseDelta, r"δ of `layers.0.weight` is not 0.5 in every unit"),
        (_FalseFunction, r"the function differs from that of Kaiming\(\)"),
        (_NeedsArgument, r"`_NeedsArgument\(\)` cannot be built without arguments"),
        (Scheme, r"`Scheme\(\)` cannot be built without arguments .*implement `apply`"),
        (nn.Linear, "`Linear` does not derive from `richlearn.schemes.Scheme`"),
    ],
)
def test_a_broken_scheme_is_found(scheme, finding):
    with pytest.raises(AssertionError, match=finding):
        raise AssertionError("\n".join(check(scheme)))


def test_a_scheme_that_repeats_itself_differently_is_found():
    own = torch.Generator()

    class OwnStream(_Base):
        def apply(self, network, generator, *, batch=None, optimizer=None):
            return super().apply(network, own)

    assert any("the same generator seed gives other parameters the second time" in finding for finding in check(OwnStream))
