"""What a database holds: numbers, plots, and the history of one structure."""

from mlipdb.stats.figures import check_plots as check_plots
from mlipdb.stats.gather import statistics as statistics
from mlipdb.stats.histogram import Bin as Bin
from mlipdb.stats.histogram import Histogram as Histogram
from mlipdb.stats.history import History as History
from mlipdb.stats.history import history as history
from mlipdb.stats.overview import MethodSummary as MethodSummary
from mlipdb.stats.overview import Statistics as Statistics
from mlipdb.stats.page import write_page as write_page
from mlipdb.stats.parity import Errors as Errors
from mlipdb.stats.parity import Outlier as Outlier
from mlipdb.stats.parity import Parity as Parity
from mlipdb.stats.parity import compare_methods as compare_methods
