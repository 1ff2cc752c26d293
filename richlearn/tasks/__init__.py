"""Tasks: LightningDataModules whose seed fixes data, teacher and order."""

from richlearn.tasks.base import Split, Task
from richlearn.tasks.linear_regression import LinearRegression
from richlearn.tasks.losses import CROSS_ENTROPY, HALF_SSE, MSE, Loss
from richlearn.tasks.modular_arithmetic import ModularArithmetic
from richlearn.tasks.order import BatchOrder
from richlearn.tasks.random_hierarchy import RandomHierarchy
from richlearn.tasks.teacher_student import TeacherStudent
from richlearn.tasks.xor import Xor

__all__ = [
    "CROSS_ENTROPY",
    "HALF_SSE",
    "MSE",
    "BatchOrder",
    "LinearRegression",
    "Loss",
    "ModularArithmetic",
    "RandomHierarchy",
    "Split",
    "Task",
    "TeacherStudent",
    "Xor",
]
