"""Training under Lightning: one network, a stack of members, and the callbacks that measure both."""

from richlearn.training.burst import Burst
from richlearn.training.members import HasMembers, Member, View
from richlearn.training.monitor import RichnessMonitor
from richlearn.training.network import NetworkModule
from richlearn.training.optimizers import Optimizer
from richlearn.training.progress import NetworkStepsBar
from richlearn.training.recorder import LossRecorder
from richlearn.training.schedules import Schedule
from richlearn.training.stacked import StackedModule
from richlearn.training.stopping import Stopping
from richlearn.training.times import check_times, log_times

__all__ = [
    "Burst",
    "HasMembers",
    "LossRecorder",
    "Member",
    "NetworkModule",
    "NetworkStepsBar",
    "Optimizer",
    "RichnessMonitor",
    "Schedule",
    "StackedModule",
    "Stopping",
    "View",
    "check_times",
    "log_times",
]
