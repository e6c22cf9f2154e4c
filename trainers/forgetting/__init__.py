"""Forgetting: what a fine-tuned model still knows of its foundation's structures, and what it does at short range."""

from mlipdb.trainers.forgetting.compare import Forgetting as Forgetting
from mlipdb.trainers.forgetting.compare import check_forgetting as check_forgetting
from mlipdb.trainers.forgetting.compare import forgetting as forgetting
from mlipdb.trainers.forgetting.keep import add_forgetting as add_forgetting
from mlipdb.trainers.forgetting.page import write_page as write_page
from mlipdb.trainers.forgetting.settings import Extent as Extent
from mlipdb.trainers.forgetting.text import table as table
