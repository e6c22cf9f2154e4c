"""Two sets of labels of the same structures: numbers, and a verdict on each quantity."""

from mlipdb.labelling.comparison.compare import LabelComparison as LabelComparison
from mlipdb.labelling.comparison.compare import compare_labels as compare_labels
from mlipdb.labelling.comparison.sample import SOURCE as SOURCE
from mlipdb.labelling.comparison.verdict import Line as Line
