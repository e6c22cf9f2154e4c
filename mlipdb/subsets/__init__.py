"""Frozen subsets, their splits, and the statistics that a training starts from."""

from mlipdb.subsets.reference import Reference as Reference
from mlipdb.subsets.reference import given_reference as given_reference
from mlipdb.subsets.reference import parse_reference as parse_reference
from mlipdb.subsets.splits import PARTS as PARTS
from mlipdb.subsets.splits import parse_fractions as parse_fractions
from mlipdb.subsets.statistics import E0Fit as E0Fit
from mlipdb.subsets.statistics import fit_e0 as fit_e0
from mlipdb.subsets.subset import FrozenSubset as FrozenSubset
from mlipdb.subsets.subset import SplitLeakWarning as SplitLeakWarning
from mlipdb.subsets.subset import SubsetDiff as SubsetDiff
from mlipdb.subsets.subset import diff as diff
from mlipdb.subsets.subset import freeze as freeze
from mlipdb.subsets.subset import freeze_chosen as freeze_chosen
from mlipdb.subsets.subset import load as load
from mlipdb.subsets.subset import materials_per_part as materials_per_part
from mlipdb.subsets.subset import names as names
from mlipdb.subsets.subset import overview as overview
from mlipdb.subsets.subset import resolve as resolve
from mlipdb.subsets.training_statistics import Request as Request
from mlipdb.subsets.training_statistics import TrainingStatistics as TrainingStatistics
from mlipdb.subsets.training_statistics import training_statistics as training_statistics
