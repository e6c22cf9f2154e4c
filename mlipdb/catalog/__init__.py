"""Every table of the catalog; one family a file."""

from mlipdb.catalog.base import Base as Base
from mlipdb.catalog.disagreement import Disagreement as Disagreement
from mlipdb.catalog.disagreement import DisagreementMethod as DisagreementMethod
from mlipdb.catalog.disagreement import StructureDisagreement as StructureDisagreement
from mlipdb.catalog.duplicate import Duplicate as Duplicate
from mlipdb.catalog.facet import Facet as Facet
from mlipdb.catalog.finding import FindingRow as FindingRow
from mlipdb.catalog.fingerprint import FingerprintTool as FingerprintTool
from mlipdb.catalog.fingerprint import StructureFingerprint as StructureFingerprint
from mlipdb.catalog.info import CatalogInfo as CatalogInfo
from mlipdb.catalog.label import LabelRow as LabelRow
from mlipdb.catalog.method import MethodRow as MethodRow
from mlipdb.catalog.run import Run as Run
from mlipdb.catalog.shard import ShardRow as ShardRow
from mlipdb.catalog.source import Quarantine as Quarantine
from mlipdb.catalog.source import Source as Source
from mlipdb.catalog.statistics import SubsetStatistics as SubsetStatistics
from mlipdb.catalog.structure import Material as Material
from mlipdb.catalog.structure import StructureElement as StructureElement
from mlipdb.catalog.structure import StructureRow as StructureRow
from mlipdb.catalog.structure import SymmetrySetting as SymmetrySetting
from mlipdb.catalog.subset import Subset as Subset
from mlipdb.catalog.subset import SubsetMember as SubsetMember
from mlipdb.catalog.tag import StructureTag as StructureTag
from mlipdb.catalog.tag import Tag as Tag
