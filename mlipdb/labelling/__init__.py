"""Labels from teachers: what a teacher is, how one is found, and the runner."""

from mlipdb.labelling.batches import BatchLimits as BatchLimits
from mlipdb.labelling.executors import open_executor as open_executor
from mlipdb.labelling.forecast import Forecast as Forecast
from mlipdb.labelling.forecast import forecast as forecast
from mlipdb.labelling.holdings import drop_labels as drop_labels
from mlipdb.labelling.holdings import list_holdings as list_holdings
from mlipdb.labelling.holdings import show_holding as show_holding
from mlipdb.labelling.load import load_teacher as load_teacher
from mlipdb.labelling.load import teacher_names as teacher_names
from mlipdb.labelling.options import Flush as Flush
from mlipdb.labelling.options import LabelOptions as LabelOptions
from mlipdb.labelling.runner import LabelReport as LabelReport
from mlipdb.labelling.runner import Progress as Progress
from mlipdb.labelling.runner import label as label
from mlipdb.labelling.teacher import LabelRequest as LabelRequest
from mlipdb.labelling.teacher import Teacher as Teacher
from mlipdb.labelling.teacher import TeacherInfo as TeacherInfo
from mlipdb.labelling.teacher import TeacherOptions as TeacherOptions
from mlipdb.labelling.unit import NamedTeacher as NamedTeacher
