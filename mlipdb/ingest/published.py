"""Published data files that ingest can fetch: where they are, and how to tell that the right one arrived."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file of a data repository. md5 is what the repository states."""

    name: str
    url: str
    bytes: int
    md5: str
    version: str
    licence: str
    citation: str


# Name, size and md5 as figshare's API (v2/articles/23713842) states them for file 41619375.
PUBLISHED: dict[str, PublishedFile] = {
    "mptrj": PublishedFile(
        name="MPtrj_2022.9_full.json",
        url="https://figshare.com/ndownloader/files/41619375",
        bytes=12_188_168_685,
        md5="50ead5f27f9a4f6beb7564c4188f1e9f",
        version="2022.9",
        licence="MIT on figshare; Materials Project data are CC BY 4.0",
        citation="B. Deng et al., Nature Machine Intelligence 5, 1031 (2023), doi:10.1038/s42256-023-00716-3; "
        "data doi:10.6084/m9.figshare.23713842",
    ),
}
