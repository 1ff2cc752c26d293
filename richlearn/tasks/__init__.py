"""Tasks: LightningDataModules whose seed fixes data, teacher and order."""

from richlearn.tasks.base import Split, Task
from richlearn.tasks.linear_regression import LinearRegression
from richlearn.tasks.losses import HALF_SSE, MSE, Loss
from richlearn.tasks.order import BatchOrder
from richlearn.tasks.teacher_student import TeacherStudent
from richlearn.tasks.xor import Xor

__all__ = ["HALF_SSE", "MSE", "BatchOrder", "LinearRegression", "Loss", "Split", "Task", "TeacherStudent", "Xor"]
