"""From source files to the database."""

from mlipdb.ingest.pipeline import GROUP as GROUP
from mlipdb.ingest.pipeline import IngestSettings as IngestSettings
from mlipdb.ingest.pipeline import ingest as ingest
from mlipdb.ingest.pipeline import parse_method as parse_method
from mlipdb.ingest.published import PUBLISHED as PUBLISHED
from mlipdb.ingest.published import PublishedFile as PublishedFile
from mlipdb.ingest.reader import Frame as Frame
from mlipdb.ingest.reader import Reader as Reader
from mlipdb.ingest.reader import Rejected as Rejected
from mlipdb.ingest.report import IngestReport as IngestReport
from mlipdb.ingest.report import describe as describe
