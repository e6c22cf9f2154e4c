"""The filter language: text with shorthands to SQL over the catalog."""

from mlipdb.query.compile import select_structure_ids as select_structure_ids
from mlipdb.query.fields import Field as Field
from mlipdb.query.fields import fields as fields
from mlipdb.query.find import count_structures as count_structures
from mlipdb.query.find import frozen_subsets as frozen_subsets
from mlipdb.query.find import stored_disagreements as stored_disagreements
from mlipdb.query.find import structure_ids as structure_ids
from mlipdb.query.summary import Answer as Answer
from mlipdb.query.summary import StructureSummary as StructureSummary
from mlipdb.query.summary import summarise as summarise
from mlipdb.query.words import check_subset_name as check_subset_name
