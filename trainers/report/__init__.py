"""Reports of trainings: what a run's model predicts, where it is wrong, and what it was made from, on one page."""

from mlipdb.trainers.report.gather import gather_report as gather_report
from mlipdb.trainers.report.page import write_report as write_report
