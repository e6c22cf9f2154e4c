"""Names, numbers and options that do not fit."""

import shlex

import pytest

# (what is wrong, words after --db, parts of the message, exit code)
CASES = [
    ("an unknown structure number", "show 99", ("there is no structure 99", "mlipdb query"), 1),
    ("an unknown external id", "show mp-0-0", ("no structure has the id 'mp-0-0'", "mlipdb query"), 1),
    ("an unknown format to ingest", "ingest mptraj x.json", ("mptraj", "mptrj"), 1),
    ("a file that is not there", "ingest extxyz absent.xyz", ("absent.xyz", "No such file", "check the path"), 1),
    ("no file to ingest", "ingest extxyz", ("PATH",), 2),
    ("a key without a value", "ingest extxyz a.xyz --key energy", ("QUANTITY=VALUE",), 2),
    ("a unit of no quantity", "ingest extxyz a.xyz --unit =eV", ("QUANTITY=VALUE",), 2),
    ("a subset name that is an element", "subset freeze Y all", ("Y",), 1),
    ("a subset name with a space", "subset freeze 'my set' all", ("my set",), 1),
    ("a subset name that is taken", "subset freeze some Na", ("some",), 1),
    ("an unknown subset", "subset show nothing", ("nothing",), 1),
    ("a subset that is nearly right", "subset show sone", ("'some'",), 1),
    ("fractions that do not sum to 100", "subset freeze a all --fractions 90/9/9", ("90/9/9", "100"), 1),
    ("fractions that are no numbers", "subset freeze a all --fractions x/y/z", ("x/y/z",), 1),
    ("a split of an unknown kind", "subset freeze a all --split-by material_id", ("material_id", "material"), 1),
    ("a comparison of a subset that is not there", "subset diff some nothing", ("nothing",), 1),
    ("a subset of nothing", "subset freeze a Zr", ("Zr",), 1),
    ("an unknown teacher", "label --teacher nequip", ("nequip", "nequix"), 1),
    ("a teacher whose package is missing", "label --teacher mace-mp", ("mlipdb[mace]",), 1),
    ("a negative number of Hessian rows", "label --teacher nequix --hessian-rows -1", ("-1",), 2),
    ("weights that are not there", "label --teacher nequix --weights absent.nqx", ("absent.nqx",), 1),
    ("an unknown method to compare", "stats --parity PBE toi", ("'toi'", "1 (PBE), 2 (toy)", "'toy'"), 1),
    ("one method to compare", "stats --parity PBE", ("--parity",), 2),
    ("a negative sample", "stats --sample -1", ("--sample", "greater than or equal to 0"), 2),
    ("a page in a folder that is not there", "stats --html absent/page.html", ("absent/page.html", "cannot be w"), 1),
    ("an unknown format to export", "export extxzy some --to out.xyz", ("extxzy", "extxyz"), 1),
    ("an export of nothing", "export extxyz Zr --to out.xyz", ("Zr",), 1),
    ("an export by an unknown method", "export extxyz some --to out.xyz --method toi", ("toi", "toy"), 1),
    ("an export of an unknown energy", "export extxyz some --to out.xyz --energy total", ("total", "uncorrected"), 1),
    ("an export that would replace a file", "export extxyz some --to there.xyz", ("there.xyz", "--force"), 1),
    ("a limit below zero", "query all --limit -1", ("--limit", "greater than or equal to 0"), 2),
    ("an option that there is not", "query all --lmit 3", ("--lmit",), 2),
    ("a command that there is not", "qeury all", ("qeury",), 2),
    ("a training without a subset", "train --model nequix", ("--subset",), 2),
    ("a training of an unknown subset", "train --subset nothing", ("nothing",), 1),
    ("a run that there is not", "evaluate nothing --subset some", ("nothing",), 1),
]


@pytest.mark.parametrize(("words", "parts", "code"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_does_not_fit_is_refused_and_changes_nothing(
    filled, refused, rows, tmp_path, monkeypatch, words, parts, code
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.xyz").write_text("mine")
    (tmp_path / "a.xyz").write_text("1\nProperties=species:S:1:pos:R:3 energy=-1\nH 0 0 0\n")
    before = rows(filled)
    refused("--db", filled, *shlex.split(words), parts=parts, code=code, lines=3)
    assert rows(filled) == before
    assert (tmp_path / "there.xyz").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.xyz", "db", "there.xyz"]


def test_a_number_beyond_64_bits_is_no_structure(filled, refused):
    refused("--db", filled, "show", "9" * 20, parts=("there is no structure 99999999999999999999",))
