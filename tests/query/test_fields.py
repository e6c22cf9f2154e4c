from mlipdb.query import fields


def test_the_table_of_fields_in_the_docs_is_that_of_the_code(root):
    expected = [
        f"| `{field.name}` | {field.type} | {field.unit or ''} | {field.description} |" for field in fields({}).values()
    ]
    lines = (root / "docs/queries.md").read_text().splitlines()
    start = lines.index("| field | type | unit | meaning |") + 2
    end = lines.index("", start)
    assert lines[start:end] == expected, "docs/queries.md: replace the rows of the table of fields by the expected ones"


def test_every_field_says_where_its_values_are():
    for field in fields({}).values():
        assert (field.items is None) == (field.type != "list"), field.name
        assert (field.relation is None) == (field.type == "list"), field.name
